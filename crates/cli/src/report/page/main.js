// The beginning: reads the page's data and draws what it is a page of; on a served page, looks for
// news and draws again where there are some.

/** What is true of a run's state depends on when the page is looked at. */
function freshness() {
  const state = $('.state[data-state]'), written = $('#written'), data = R?.data;
  if (!state || !data) return;
  const old = now() - data.generated;
  const claims = state.dataset.state === 'running' && !data.live;
  if (claims && old > 600) {
    $('b', state).textContent = 'was running when this page was written';
    $('.dot', state).className = 'dot stop';
  }
  if (written) {
    written.hidden = !(claims && old > 600);
    written.textContent = ` · page written ${ago(old)}`;
  }
}

function drawRun(data) {
  readRun(data);
  for (const section of [curves, timeline, layers, tensors, compare, damage, cost, checkpoints]) {
    try {
      section();
    } catch (error) {
      // One section that fails leaves the others readable.
      console.error(error);
    }
  }
}

const DRAW = { run: drawRun, runs: (data) => drawRuns(data), file: (data) => drawFile(data) };

function boot() {
  const data = JSON.parse($('#data').textContent);
  onSize.length = onTheme.length = onCursor.length = 0;
  themeButton();
  copyButtons();
  DRAW[data.kind]?.(data);
  onSize.forEach((draw) => draw());
  ages();
  freshness();
  spy();
  if (data.live) setTimeout(() => look(data.live), 2000);
}

/** Asks a serving tensorkeep whether the run has changed, and takes the new page in. */
let seen = /** @type {string | null} */ (null);
async function look(where) {
  try {
    const answer = await fetch(where, { cache: 'no-store' }), mark = await answer.text();
    if (answer.ok && seen != null && mark !== seen) {
      const page = await (await fetch(location.pathname + location.search, { cache: 'no-store' })).text();
      const next = new DOMParser().parseFromString(page, 'text/html');
      const from = $('.page', next), data = $('#data', next);
      if (from && data) {
        seen = mark;
        const y = scrollY;
        $('.page').replaceWith(document.adoptNode(from));
        $('#data').textContent = data.textContent;
        document.title = next.title;
        boot();
        scrollTo(0, y);
        return;
      }
    }
    if (answer.ok) seen = mark;
    $('#lost')?.remove();
  } catch {
    if (!$('#lost')) $('.foot').prepend(h('p', { id: 'lost', class: 'warn' }, 'tensorkeep serve does not answer; this is what it said last.'));
  }
  setTimeout(() => look(where), 2000);
}

setInterval(() => {
  ages();
  freshness();
}, 1000);
boot();
