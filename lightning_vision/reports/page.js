for (const table of document.querySelectorAll("table.classes")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column];
    return column === 0 ? cell.textContent : cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
  };
  const sort = (head, column) => {
    const down = column > 0 ? head.ariaSort !== "descending" : head.ariaSort === "ascending";
    const order = (a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (column === 0) return (down ? -1 : 1) * x.localeCompare(y);
      if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
      return down ? y - x : x - y;
    };
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort(order));
  };
  heads.forEach((head, column) => {
    head.setAttribute("aria-sort", "none");
    head.tabIndex = 0;
    head.title = "sort";
    head.addEventListener("click", () => sort(head, column));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(head, column); }
    });
  });
}
