// Downloads the statement of a wallet as a file.

import { getDocument } from "/assets/api.js";
import { bindForm, element } from "/assets/page.js";

const TYPES = { CSV: "text/csv", JSON: "application/json" };

/** Lets the browser download `content` as a file. */
function save(content, name) {
  const link = element("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  // By then the download has begun, and no longer needs the URL.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Binds the form for the statement of the wallet that is shown. */
export function bindStatement(shown) {
  bindForm("statement", async ({ from, to, format }) => {
    const query = new URLSearchParams();
    for (const [name, date] of [["from", from], ["to", to]]) {
      if (date) query.set(name, `${date}T00:00:00Z`);
    }
    const content = await getDocument(`/wallet/${shown.id}/statement?${query}`, TYPES[format]);
    const name = ["statement", shown.id, from && `from-${from}`, to && `before-${to}`].filter(Boolean).join("-");
    save(content, `${name}.${format.toLowerCase()}`);
    return `Saved the statement as ${name}.${format.toLowerCase()}.`;
  }, { resets: false });
}
