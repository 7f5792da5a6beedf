// Filter of the key page: show the table rows that contain every typed word. Without scripts, all rows are shown.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const box = document.querySelector(".filter");
  if (!box) return;
  const input = box.querySelector("input");
  const count = box.querySelector("output");
  const rows = [...document.querySelectorAll("table.keys tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const sections = [...document.querySelectorAll("article section section")];

  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every((word) => texts[place].includes(word));
      shown += !row.hidden;
    });
    for (const section of sections) {
      section.hidden = words.length > 0 && !section.querySelector("table.keys tbody tr:not([hidden])");
    }
    document.querySelector("article").classList.toggle("filtered", words.length > 0);
    count.value = words.length ? `${shown} of ${rows.length} keys` : "";
    const url = new URL(location.href);
    words.length ? url.searchParams.set("filter", words.join(" ")) : url.searchParams.delete("filter");
    try { history.replaceState(null, "", url); } catch { /* a page opened as a file may not change its address */ }
  };

  box.hidden = false;
  input.value = new URL(location.href).searchParams.get("filter") ?? "";
  input.addEventListener("input", apply);
  apply();
});
