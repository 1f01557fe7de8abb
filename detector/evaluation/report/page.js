"use strict";
// Everything can be read without this script: it adds buttons to what is there, and builds nothing of its own.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const clamp = (number, last) => Math.min(Math.max(number, 0), last);

  /** Puts a button between an element and what it holds. */
  function makeButton(parent, label) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...parent.childNodes);
    if (label) button.setAttribute("aria-label", label);
    parent.append(button);
    return button;
  }

  function valueOf(row, column) {
    const cell = row.cells[column];
    if (column === 0) return cell.textContent;
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  }

  /** Rows without a number stay last, whichever way the others stand. */
  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  }

  function sortBy(table, column) {
    const heads = [...table.tHead.rows[0].cells];
    const before = heads[column].getAttribute("aria-sort");
    const first = column === 0 ? "ascending" : "descending";
    const other = column === 0 ? "descending" : "ascending";
    const order = before === first ? other : first;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", order);
    const keyed = [...table.tBodies[0].rows].map((row) => [valueOf(row, column), row]);
    keyed.sort((a, b) => compare(a[0], b[0], order === "ascending" ? 1 : -1));
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  }

  function makeSortable(table) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      makeButton(head).addEventListener("click", () => sortBy(table, column));
    });
  }

  /** A pressed entry of the legend stands out in both charts; while none is pressed, the one pointed at. */
  function makeLegend(legend) {
    const charts = all(".chart", legend.closest("section"));
    const show = (series) => charts.forEach((chart) => {
      chart.classList.toggle("dimmed", series !== null);
      all(".line", chart).forEach((line) => line.classList.toggle("chosen", line.classList.contains(`s${series}`)));
    });
    let pressed = null;
    all("li", legend).forEach((entry) => {
      const button = makeButton(entry);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", () => {
        pressed = pressed === entry.dataset.series ? null : entry.dataset.series;
        all("button", legend).forEach((each) =>
          each.setAttribute("aria-pressed", String(each.parentElement.dataset.series === pressed)));
        show(pressed);
      });
      entry.addEventListener("pointerenter", () => show(pressed ?? entry.dataset.series));
      entry.addEventListener("pointerleave", () => show(pressed));
    });
  }

  /** One field at a time can be reached by Tab; arrow keys lead to the others. */
  function makeMatrix(box) {
    const rows = [...box.querySelector("tbody").rows].map((row) => all("td", row));
    const readout = box.nextElementSibling;
    const tell = (cell) => { readout.textContent = cell.title; };
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    rows[0][0].tabIndex = 0;
    box.addEventListener("pointermove", (event) => {
      const cell = event.target.closest("tbody td");
      if (cell) tell(cell);
    });
    rows.forEach((row, y) => row.forEach((cell, x) => {
      cell.addEventListener("focus", () => tell(cell));
      cell.addEventListener("keydown", (event) => {
        const step = steps[event.key];
        if (!step) return;
        event.preventDefault();
        const next = rows[clamp(y + step[0], rows.length - 1)][clamp(x + step[1], row.length - 1)];
        cell.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      });
    }));
  }

  function makeFilters(box, cards) {
    const selects = all("select", box);
    const apply = () => {
      cards.forEach((card) => {
        card.hidden = selects.some(
          (select) => select.value && !card.dataset[select.dataset.filter].split(" ").includes(select.value));
      });
      const left = cards.filter((card) => !card.hidden).length;
      box.querySelector(".shown").textContent = `${left} of ${cards.length} shown`;
    };
    selects.forEach((select) => select.addEventListener("change", apply));
    apply();
  }

  function makeViewer(viewer, cards) {
    const image = document.createElement("img");
    viewer.querySelector(".frame").append(image);
    const open = () => cards.filter((card) => !card.hidden);
    let current = null;
    const show = (card) => {
      current = card;
      const source = card.querySelector("img");
      image.src = source.src;
      image.alt = source.alt;
      viewer.querySelector(".what").replaceChildren(...card.querySelector("figcaption").cloneNode(true).childNodes);
      viewer.querySelector(".place").textContent = `${open().indexOf(card) + 1} of ${open().length}`;
      viewer.querySelector(".frame").scrollTo(0, 0);
    };
    const move = (step) => show(open()[clamp(open().indexOf(current) + step, open().length - 1)]);
    cards.forEach((card) => {
      const source = card.querySelector("img");
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `Enlarge ${source.alt}`);
      source.replaceWith(button);
      button.append(source);
      button.addEventListener("click", () => {
        show(card);
        viewer.showModal();
        viewer.querySelector("[data-step='1']").focus();
      });
    });
    all("[data-step]", viewer).forEach((button) =>
      button.addEventListener("click", () => move(Number(button.dataset.step))));
    viewer.querySelector(".close").addEventListener("click", () => viewer.close());
    viewer.addEventListener("close", () => current.querySelector("button").focus());
    viewer.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      move(step);
    });
  }

  /** The section that is being read is marked in the list of sections. */
  function markCurrent(links, sections) {
    const seen = new Set();
    const observer = new IntersectionObserver((entries) => {
      entries.forEach((entry) => seen[entry.isIntersecting ? "add" : "delete"](entry.target));
      const current = sections.find((section) => seen.has(section));
      if (!current) return;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.find((link) => link.hash === `#${current.id}`).setAttribute("aria-current", "true");
    }, { rootMargin: "-10% 0px -60% 0px" });
    sections.forEach((section) => observer.observe(section));
  }

  /** A box that has nothing to scroll is no stop for Tab. */
  function watchOverflow(box) {
    new ResizeObserver(() => {
      const fits = box.scrollWidth <= box.clientWidth && box.scrollHeight <= box.clientHeight;
      box.tabIndex = fits ? -1 : 0;
    }).observe(box);
  }

  document.documentElement.classList.add("js");
  all(".scroll").forEach(watchOverflow);
  markCurrent(all("nav a"), all("main > section"));
  all("table.sortable").forEach(makeSortable);
  all(".legend").forEach(makeLegend);
  all(".matrix").forEach(makeMatrix);
  const cards = all(".card");
  all(".filters").forEach((box) => makeFilters(box, cards));
  all(".viewer").forEach((viewer) => makeViewer(viewer, cards));
  addEventListener("beforeprint", () => all("details").forEach((each) => { each.open = true; }));
})();
