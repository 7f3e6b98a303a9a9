// The cursor's place in one picture is marked in all of them; a click sends it, in fractions of the photograph's width and height.
const locate = (event) => {
  const picture = event.target.closest(".map")?.querySelector("img");
  if (!picture) return null;
  const box = picture.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
};
element.addEventListener("mousemove", (event) => {
  const point = locate(event);
  element.classList.toggle("hovered", point !== null);
  if (point === null) return;
  element.style.setProperty("--cursor-x", `${100 * point.x}%`);
  element.style.setProperty("--cursor-y", `${100 * point.y}%`);
});
element.addEventListener("mouseleave", () => element.classList.remove("hovered"));
element.addEventListener("click", (event) => {
  const point = locate(event);
  if (point !== null) trigger("click", point);
});
