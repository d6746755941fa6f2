// What the panels of the notebook share; `apps.cells.script` puts it in front of each.

/** A share between 0 and 1 as a person reads it, as `core.percent` writes it: 100 % and 0 % only for what is exactly that. */
function percent(share) {
  if (share == null) return "no score";
  const value = 100 * share;
  const told = [0, 1].map((digits) => value.toFixed(digits)).find((text) => value <= 0 || value >= 100 || (text > 0 && text < 100));
  return `${told ?? (value > 50 ? ">99.9" : "<0.1")}\u00a0%`;
}
