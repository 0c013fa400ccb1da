"use strict";
// Without this script the questions are a plain list, and the filters stay hidden.
const filters = document.getElementById("filters");
if (filters) {
  const questions = [...document.querySelectorAll("#questions-list > li")].map((item) => ({
    item,
    tags: item.dataset.tags.split(" "),
    text: item.textContent.toLowerCase(),
  }));
  const apply = () => {
    const wanted = [...filters.querySelectorAll("select")].map((select) => select.value).filter(Boolean);
    const text = filters.elements.text.value.trim().toLowerCase();
    let shown = 0;
    for (const question of questions) {
      const fits = wanted.every((tag) => question.tags.includes(tag)) && question.text.includes(text);
      question.item.hidden = !fits;
      shown += fits;
    }
    filters.querySelector("output").value = `${shown} of ${questions.length} questions`;
  };
  filters.addEventListener("input", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.hidden = false;
  apply(); // a browser keeps what was chosen when a page is loaded again
}
