// Zooming, searching, and what is said of the box under the mouse. Names are read by textContent and written by textContent.
'use strict';
(() => {
  const svg = document.currentScript.closest('svg');
  const MARGIN = 10, ROW = 18, PADDING = 6, NARROWEST = 0.1;
  const standsAlone = svg === document.documentElement;

  // ---- The boxes, each caller before its callees.

  const boxes = Array.from(svg.querySelectorAll('.box'), (element, index) => ({
    element,
    index,
    rect: element.querySelector('rect'),
    label: element.querySelector('text'),
    start: Number(element.dataset.start),
    total: Number(element.dataset.total),
    depth: Number(element.dataset.depth),
    keepsEnd: element.dataset.end === '1',
    shown: true,
  }));
  if (boxes.length === 0) return;
  const all = boxes[0];
  const indexOf = new Map(boxes.map((box) => [box.element, box]));
  const about = (box) => box.element.querySelector('title').textContent.split('\n');
  const nameOf = (box) => (box.name ??= about(box)[0]);
  const endOf = (box) => box.start + box.total;
  const covers = (outer, inner) =>
    outer.depth <= inner.depth && outer.start <= inner.start && endOf(outer) >= endOf(inner);
  const percent = (part, whole) => (whole > 0 ? (100 * part / whole).toFixed(2) : '0.00') + ' %';

  // ---- What is shown: a box over the whole width, and a search. The address has both, so that "back" works.

  let zoom = all;
  let query = { text: '', regex: false };
  let width = Number(svg.getAttribute('width'));
  const charWidth = measureChar();

  function measureChar() {
    const probe = document.createElementNS(svg.namespaceURI, 'text');
    probe.textContent = 'M'.repeat(40);
    svg.append(probe);
    const measured = probe.getComputedTextLength() / 40;
    probe.remove();
    return measured > 0 ? measured : 7.25;
  }

  // A function's name without what says least: `Mutex<T>::lock` for `<Mutex<T> as Lock>::lock::{{closure}}`, and `Sleep` for
  // `<Sleep as Future>::poll`.
  function short(name) {
    const open = name.replace(/(::\{\{closure\}\})+$/, '');
    const end = open.lastIndexOf('>::');
    const as = open.lastIndexOf(' as ', end);
    if (!open.startsWith('<') || as < 0) return open;
    const of = open.slice(1, as);
    return open.endsWith('Future>::poll') ? of : of + open.slice(end + 1);
  }

  function fitted(box, room) {
    const chars = Math.floor((room - PADDING) / charWidth);
    if (chars < 3) return '';
    const whole = Array.from(nameOf(box));
    if (whole.length <= chars) return whole.join('');
    const name = box.keepsEnd ? Array.from(short(nameOf(box))) : whole;
    if (name.length <= chars) return name.join('');
    return box.keepsEnd
      ? '…' + name.slice(name.length - chars + 1).join('')
      : name.slice(0, chars - 1).join('') + '…';
  }

  function place(box, left, room) {
    box.rect.setAttribute('x', left.toFixed(2));
    box.rect.setAttribute('width', room.toFixed(2));
    const words = fitted(box, room);
    if (words === '') {
      if (box.label) box.label.remove();
      box.label = null;
      return;
    }
    if (!box.label) {
      box.label = document.createElementNS(svg.namespaceURI, 'text');
      box.label.setAttribute('y', Number(box.rect.getAttribute('y')) + 13);
      box.element.append(box.label);
    }
    box.label.setAttribute('x', (left + 3).toFixed(2));
    box.label.textContent = words;
  }

  function draw() {
    const room = width - 2 * MARGIN;
    let rows = 0;
    for (const box of boxes) {
      const isCaller = box !== zoom && covers(box, zoom);
      const scaled = isCaller ? room : box.total / zoom.total * room;
      box.shown = isCaller || (covers(zoom, box) && scaled >= NARROWEST);
      box.element.style.display = box.shown ? '' : 'none';
      if (!box.shown) continue;
      rows = Math.max(rows, box.depth + 1);
      box.element.classList.toggle('caller', isCaller);
      const left = isCaller ? 0 : (box.start - zoom.start) / zoom.total * room;
      place(box, MARGIN + left, scaled);
    }
    const top = Number(all.rect.getAttribute('y'));
    svg.setAttribute('height', top + rows * ROW + MARGIN);
    reset.disabled = zoom === all;
    showMatches();
  }

  // ---- Searching.

  function matcher() {
    if (query.text === '') return null;
    if (query.regex) {
      // Without "u", `{{closure}}` is a regular expression too.
      const regex = new RegExp(query.text, 'i');
      return (name) => regex.test(name);
    }
    const wanted = query.text.toLowerCase();
    return (name) => name.toLowerCase().includes(wanted);
  }

  function search() {
    let matches = null;
    let wrong = '';
    try {
      matches = matcher();
    } catch (error) {
      wrong = 'this is no regular expression';
    }
    for (const box of boxes) {
      box.found = matches !== null && matches(nameOf(box));
      box.element.classList.toggle('found', box.found);
    }
    svg.classList.toggle('searched', matches !== null);
    result.classList.toggle('wrong', wrong !== '');
    result.textContent = wrong;
    if (wrong === '') showMatches();
  }

  // A found box within a found box is counted once.
  function showMatches() {
    if (!svg.classList.contains('searched')) return;
    let count = 0, part = 0, end = 0;
    for (const box of boxes) {
      if (!box.found || !covers(zoom, box)) continue;
      count += 1;
      if (box.start < end) continue;
      part += box.total;
      end = endOf(box);
    }
    const ofZoom = zoom === all ? '' : `, ${percent(part, zoom.total)} of what is shown`;
    result.textContent = `${count} found, in ${percent(part, all.total)} of all${ofZoom}`;
  }

  // ---- The tools above the boxes.

  const tools = svg.querySelector('.tools');
  const make = (tag, inside, attributes) => {
    const element = document.createElementNS('http://www.w3.org/1999/xhtml', tag);
    for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
    inside.append(element);
    return element;
  };
  const panel = make('div', tools);
  const first = make('p', panel);
  const reset = make('button', first, { type: 'button', title: 'Esc' });
  reset.textContent = 'Show all';
  const field = make('input', first, { type: 'search', 'aria-label': 'Search', placeholder: 'Search (/ or Ctrl+F)' });
  const regexLabel = make('label', first);
  const regexBox = make('input', regexLabel, { type: 'checkbox' });
  make('span', regexLabel).textContent = 'regular expression';
  const result = make('span', first, { role: 'status' });
  const second = make('p', panel, { class: 'about' });
  const HELP = 'Click a frame to zoom, Esc to show all, arrow keys to walk, Enter to zoom, / to search';

  // The name and the source give way where there is no room for all.
  function tell(box) {
    second.replaceChildren();
    const say = (words, kind) => {
      if (words) make('span', second, { class: kind }).textContent = words;
    };
    if (!box) {
      say(HELP, 'amounts');
      return;
    }
    const [name, ...rest] = about(box);
    const amounts = rest.findIndex((line) => line.startsWith('total '));
    say(name, 'name');
    say(rest.slice(amounts).join(' · '), 'amounts');
    if (zoom !== all && covers(zoom, box)) say(`${percent(box.total, zoom.total)} of what is shown`, 'amounts');
    say(rest.slice(0, amounts).join(' '), 'source');
  }

  // The tools stay in sight.
  function keepInSight() {
    if (!standsAlone) return;
    const scrolled = window.scrollY || 0;
    tools.setAttribute('y', Math.max(Number(all.rect.getAttribute('y')) - tools.height.baseVal.value, scrolled));
  }

  // ---- The address: #box=12&search=words&regex=1

  function address() {
    const parts = new URLSearchParams();
    if (zoom !== all) parts.set('box', zoom.index);
    if (query.text !== '') parts.set('search', query.text);
    if (query.regex) parts.set('regex', '1');
    return '#' + parts;
  }

  function remember(isStep) {
    if (!standsAlone || location.hash === address() || location.hash + '#' === address()) return;
    try {
      if (isStep) history.pushState(null, '', address());
      else history.replaceState(null, '', address());
    } catch (error) {
      // Some viewers have no history. The picture works without.
    }
  }

  function recall() {
    if (!standsAlone) return;
    const parts = new URLSearchParams(location.hash.slice(1));
    zoom = boxes[Number(parts.get('box') ?? 0)] ?? all;
    query = { text: (parts.get('search') ?? '').slice(0, 1000), regex: parts.get('regex') === '1' };
    field.value = query.text;
    regexBox.checked = query.regex;
  }

  // ---- What the user does.

  function zoomTo(box) {
    zoom = box.total > 0 ? box : all;
    draw();
    remember(true);
  }

  function searchAnew() {
    query = { text: field.value, regex: regexBox.checked };
    search();
    remember(false);
  }

  function focus(box) {
    if (!box) return;
    current.element.setAttribute('tabindex', '-1');
    current = box;
    makeReachable(box);
    box.element.focus();
  }

  // The tab key stops at one box. Arrow keys lead to the others.
  function makeReachable(box) {
    box.element.setAttribute('tabindex', '0');
    box.element.setAttribute('role', 'button');
  }

  const boxAt = (event) => {
    const element = event.target.closest && event.target.closest('.box');
    return element ? indexOf.get(element) : undefined;
  };
  const shown = (test) => boxes.filter((box) => box.shown && test(box));
  const widest = (some) => some.reduce((best, box) => (!best || box.total > best.total ? box : best), null);

  // Where an arrow key leads.
  const NEXT = {
    ArrowDown: (at) => widest(shown((box) => box.depth === at.depth + 1 && covers(at, box))),
    ArrowUp: (at) => shown((box) => box.depth === at.depth - 1 && covers(box, at)).pop(),
    ArrowLeft: (at) => shown((box) => box.depth === at.depth && box.index < at.index).pop(),
    ArrowRight: (at) => shown((box) => box.depth === at.depth && box.index > at.index)[0],
  };

  function onKeyInField(event) {
    if (event.key === 'Escape') {
      field.value = '';
      searchAnew();
      focus(current);
    } else if (event.key === 'Enter') {
      const found = shown((box) => box.found);
      focus(found.find((box) => box.index > current.index) ?? found[0]);
    } else return;
    event.preventDefault();
  }

  function onKey(event) {
    const wantsSearch = event.key === '/' || (event.key === 'f' && (event.ctrlKey || event.metaKey));
    if (event.target === field) {
      if (event.key !== '/' && !wantsSearch) onKeyInField(event);
      return;
    }
    if (wantsSearch) {
      field.focus();
      field.select();
    } else if (event.ctrlKey || event.altKey || event.metaKey) return;
    else if (event.key === 'Escape') zoomTo(all);
    else if (boxAt(event) && NEXT[event.key]) focus(NEXT[event.key](current));
    else if (boxAt(event) && (event.key === 'Enter' || event.key === ' ')) zoomTo(current);
    else return;
    event.preventDefault();
  }

  let current = all;
  makeReachable(all);
  svg.addEventListener('click', (event) => {
    const box = boxAt(event);
    if (box) zoomTo(box);
  });
  svg.addEventListener('mouseover', (event) => {
    const box = boxAt(event);
    if (box) tell(box);
  });
  svg.addEventListener('mouseleave', () => tell(null));
  svg.addEventListener('focusin', (event) => {
    const box = boxAt(event);
    if (!box) return;
    current = box;
    tell(box);
  });
  (standsAlone ? window : svg).addEventListener('keydown', onKey);
  reset.addEventListener('click', () => zoomTo(all));
  field.addEventListener('input', searchAnew);
  regexBox.addEventListener('change', searchAnew);

  function start() {
    recall();
    search();
    draw();
    tell(null);
    keepInSight();
  }

  function fit() {
    if (!standsAlone) return;
    width = Math.max(svg.ownerDocument.documentElement.clientWidth || window.innerWidth, 400);
    svg.setAttribute('width', width);
    for (const words of svg.querySelectorAll('.title, .subtitle')) {
      words.setAttribute('x', width / 2);
      squeeze(words, words.getComputedTextLength());
    }
    const legend = svg.querySelector('.legend');
    squeeze(legend, legend.getBBox().width);
  }

  // What was laid out for a wider window.
  function squeeze(element, natural) {
    const share = Math.min(1, (width - 2 * MARGIN) / natural);
    const middle = element.getAttribute('x') ?? MARGIN;
    const squeezed = `translate(${middle} 0) scale(${share} 1) translate(${-middle} 0)`;
    if (share < 1) element.setAttribute('transform', squeezed);
    else element.removeAttribute('transform');
  }

  fit();
  start();
  window.addEventListener('resize', () => {
    fit();
    draw();
  });
  window.addEventListener('scroll', keepInSight);
  window.addEventListener('popstate', start);
  window.addEventListener('hashchange', start);
})();
