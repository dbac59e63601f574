// Buttons that show a sign are called by their words; whoever points at one is told them.
const told = (event) => {
  const button = event.target.closest?.(".dk-tool");
  if (button && !button.title) button.title = button.textContent.trim();
};

document.addEventListener("pointerover", told);
document.addEventListener("focusin", told);

// The help of a control is part of it for screen readers; it is on show for whoever goes from control to control by key.
document.addEventListener("focusin", (event) => {
  const help = event.target.closest?.(".block")?.querySelector(".info-text");
  if (!help || event.target.getAttribute("aria-describedby")) return;
  help.id ||= `${event.target.closest(".block").id}-help`;
  event.target.setAttribute("aria-describedby", help.id);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Tab") document.documentElement.dataset.keys = "yes";
  if (event.key === "Escape") delete document.documentElement.dataset.keys;
});
document.addEventListener("pointerdown", () => delete document.documentElement.dataset.keys);
