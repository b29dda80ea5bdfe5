// Light, dark or as the system has it; set before anything is drawn.
(() => {
  const key = "kinema.theme";
  let wanted = null;
  try { wanted = localStorage.getItem(key); } catch { /* storage is refused */ }
  if (wanted) document.documentElement.dataset.theme = wanted;
  window.kinemaTheme = {
    get: () => document.documentElement.dataset.theme ?? "auto",
    set(value) {
      if (value === "auto") delete document.documentElement.dataset.theme;
      else document.documentElement.dataset.theme = value;
      try { if (value === "auto") localStorage.removeItem(key); else localStorage.setItem(key, value); } catch { /* as above */ }
    },
  };
})();
