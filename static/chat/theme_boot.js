// A classic script in <head>: sets the chosen theme, and whether the list of conversations stands open, before the first paint, so
// that nothing flashes.
try {
  const theme = localStorage.getItem("webgemma.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  if (localStorage.getItem("webgemma.sidebar") === "closed") document.documentElement.dataset.sidebar = "closed";
} catch {
  // Storage may be forbidden; the system's theme is used.
}
