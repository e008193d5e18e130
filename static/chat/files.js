/** The largest file that is read as conversations, in bytes. */
export const LARGEST_FILE = 200_000_000;

/**
 * Gives a text to the person as a file.
 *
 * @param {string} name
 * @param {string} type  MIME
 * @param {string} text
 */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser takes it over in its own time.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
