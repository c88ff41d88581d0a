// Light or dark, as the machine says or as it was chosen here. Runs before the first paint, so that nothing flashes.
"use strict";
(() => {
  const KEPT = "turnout.theme";
  const CHOICES = ["auto", "light", "dark"];

  function chosen() {
    try {
      const kept = localStorage.getItem(KEPT);
      return CHOICES.includes(kept) ? kept : "auto";
    } catch {
      return "auto"; // storage is forbidden: the machine's choice is all there is
    }
  }

  function apply(choice) {
    document.documentElement.dataset.theme = choice;
  }

  window.turnoutTheme = {
    chosen,
    next() {
      const choice = CHOICES[(CHOICES.indexOf(document.documentElement.dataset.theme) + 1) % CHOICES.length];
      apply(choice);
      try {
        localStorage.setItem(KEPT, choice);
      } catch {
        // It holds until the page is left.
      }
      return choice;
    },
  };
  apply(chosen());
})();
