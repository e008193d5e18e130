// A classic script in <head>: sets the chosen theme before the first paint, so that nothing flashes.
try {
  const theme = localStorage.getItem("webgemma.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden; the system's theme is used.
}
