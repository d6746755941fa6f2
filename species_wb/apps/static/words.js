// What the panels of the notebook share; `apps.cells.script` puts it in front of each.

/** A share between 0 and 1 as a person reads it: never 100 % or 0 % for what is not. */
function percent(share) {
  if (share == null) return "no score";
  if (share >= 0.9995 && share < 1) return ">\u00a099.9\u00a0%";
  if (share > 0 && share < 0.0005) return "<\u00a00.1\u00a0%";
  return `${(100 * share).toFixed((share >= 0.985 && share < 1) || (share < 0.015 && share > 0) ? 1 : 0)}\u00a0%`;
}
