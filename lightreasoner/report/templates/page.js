const box = document.getElementById("search");
const [field, count] = box.children;
const listed = [...document.querySelectorAll("details[class]")];
box.hidden = false;
box.parentElement.addEventListener("input", () => {
  const wanted = field.value.trim().toLowerCase();
  for (const each of listed) each.hidden = !each.textContent.toLowerCase().includes(wanted);
  count.value = wanted && `${listed.filter(each => each.checkVisibility()).length} found`;
});
