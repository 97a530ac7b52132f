"use strict";
(function () {
  var box = document.getElementById("picked"), held = false;
  function clear() {
    document.querySelectorAll(".lit").forEach(function (e) { e.classList.remove("lit"); });
    box.hidden = true;
  }
  function show(mark) {
    clear();
    var number = mark.getAttribute("data-trial"), title = mark.querySelector("title");
    document.querySelectorAll('[data-trial="' + number + '"]').forEach(function (e) { e.classList.add("lit"); });
    box.textContent = title ? title.textContent : mark.getAttribute("title");
    box.hidden = false;
  }
  document.addEventListener("pointerover", function (event) {
    var mark = event.target.closest("[data-trial]");
    if (held || event.pointerType === "touch") { return; }
    if (mark) { show(mark); } else { clear(); }
  });
  document.addEventListener("click", function (event) {
    var mark = event.target.closest("[data-trial]");
    held = Boolean(mark);
    if (mark) { show(mark); } else { clear(); }
  });
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape") { held = false; clear(); }
  });
})();
