// The cursor's place in one picture is marked in all of them and sent, as a click's is, in fractions of the photograph's width and height.
const locate = (event) => {
  const picture = event.target.closest(".map")?.querySelector("img");
  if (!picture) return null;
  const box = picture.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
};
const leave = () => {
  if (element.classList.contains("hovered")) trigger("input", { x: null, y: null });
  element.classList.remove("hovered");
};
element.addEventListener("mousemove", (event) => {
  const point = locate(event);
  if (point === null) return leave();
  element.classList.add("hovered");
  element.style.setProperty("--cursor-x", `${100 * point.x}%`);
  element.style.setProperty("--cursor-y", `${100 * point.y}%`);
  trigger("input", point);
});
element.addEventListener("mouseleave", leave);
element.addEventListener("click", (event) => {
  const point = locate(event);
  if (point !== null) trigger("click", point);
});
