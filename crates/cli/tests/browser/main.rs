//! The pages in a real browser: every row of what a person does on them, both themes, from a desk
//! to a telephone; nothing asked of the network, nothing complained of. Skipped where there is no
//! Chromium. With `TENSORKEEP_SCREENSHOTS=DIR` the pictures stay, for eyes.

#[path = "../common/chromium.rs"]
mod chromium;
#[path = "../common/mod.rs"]
mod common;
mod made;
mod other;
mod window;

use common::Run;
use made::{Made, Plan};
use serde_json::json;
use tensorkeep_cli::report::Options;
use window::Window;

/// The usual run, with NaN at its end and a damaged checkpoint in its middle.
fn troubled() -> Made {
    let made = Made::new(&Plan { nan_from: Some(570), ..Plan::usual() });
    let names = made.names();
    made.damage(&names[names.len() / 2]);
    made
}

#[test]
fn what_a_person_does_on_the_page_works() {
    let made = troubled();
    let page = made.page();
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    let url = made.write(&page);
    let Some(window) = Window::open(&url) else { return };
    for theme in ["light", "dark"] {
        window.look_at_all("report", 1400, theme);
        window.look_at_all("report", 400, theme);
    }
    one_cursor_reads_all_charts(&window);
    a_click_pins_and_a_drag_zooms(&window);
    axes_and_smoothing(&window);
    the_timeline_is_walked_by_keys(&window);
    the_heat_map_opens_histograms(&window);
    tensors_are_filtered_and_walked(&window);
    the_treemap_draws_every_byte(&window);
    two_checkpoints_side_by_side(&window);
    checkpoints_are_filtered_and_found(&window);
    every_chart_has_its_table(&window);
    nothing_is_small_or_nameless(&window);
    assert_eq!(window.too_wide(), [""; 0], "scrolls sideways");
    window.prints();
    let heard: Vec<String> =
        window.heard().into_iter().filter(|heard| !heard.starts_with("file://")).collect();
    assert_eq!(heard, [""; 0], "no complaint, and no request");
}

/// Row 1.
fn one_cursor_reads_all_charts(window: &Window) {
    let values = || window.texts("#curves .chart .v");
    assert!(values().iter().all(|value| value.starts_with("last ")), "{:?}", values());
    assert!(values().iter().any(|value| value == "last NaN"), "{:?}", values());
    window.hover("#curves .chart svg[role=slider]", 0.4, 0.5);
    let charts = window.count("#curves .chart");
    assert!(charts >= 6, "{charts}");
    assert!(values().iter().all(|value| value.contains(" at ")), "{:?}", values());
    let at = window.text("#at");
    for word in ["step ", "epoch ", "attempt ", "nearest kept "] {
        assert!(at.contains(word), "{word:?} in {at:?}");
    }
    window.hover("h1", 0.5, 0.5);
    assert!(values().iter().all(|value| value.starts_with("last ")), "{:?}", values());
}

/// Row 2.
fn a_click_pins_and_a_drag_zooms(window: &Window) {
    const CHART: &str = "#curves .chart svg[role=slider]";
    let (at, is_whole) = (|| window.text("#at"), || window.js("document.querySelector('#reset').disabled"));
    window.click_at(CHART, 0.5, 0.5);
    window.hover("h1", 0.5, 0.5);
    assert!(at().contains("pinned"), "{}", at());
    window.focus(CHART);
    window.key("Escape");
    assert!(!at().contains("step "), "{}", at());
    window.drag(CHART, 0.3, 0.6);
    assert_eq!(is_whole(), false);
    let ticks = window.texts("#curves .chart:first-child text").join(" ");
    window.click("#reset");
    assert_eq!(is_whole(), true);
    assert_ne!(ticks, window.texts("#curves .chart:first-child text").join(" "));
    for undo in ["double click", "Escape"] {
        window.focus(CHART);
        window.key("+");
        assert_eq!(is_whole(), false, "{undo}");
        if undo == "Escape" {
            window.key("Escape");
            window.key("Escape");
        } else {
            window.double_click(CHART);
        }
        assert_eq!(is_whole(), true, "{undo}");
    }
    window.focus(CHART);
    let text = || window.js(&format!("document.querySelector('{CHART}').getAttribute('aria-valuetext')"));
    let mut seen = Vec::new();
    for key in ["Home", "PageUp", "End", "PageDown"] {
        window.key(key);
        seen.push(text().as_str().unwrap().to_owned());
    }
    assert!(seen.windows(2).all(|two| two[0] != two[1]), "{seen:?}");
    window.key("-");
    window.key("Escape");
    window.key("Escape");
}

/// Row 3.
fn axes_and_smoothing(window: &Window) {
    window.choose("#curves", "x axis", "epoch");
    window.choose("#curves", "x axis", "time");
    window.choose("#curves", "x axis", "step");
    window.choose("#curves", "y axis", "log");
    let logs = || window.texts("#curves .sub").iter().filter(|text| text.ends_with("log")).count();
    assert!(logs() >= 3, "{}", logs());
    window.choose("#curves", "y axis", "linear");
    assert_eq!(logs(), 0);
    window.choose("#curves", "y axis", "auto");
    assert!(window.count("#curves .raw") > 1, "the pale band behind a smoothed line");
    window.fill("#smooth", "0");
    assert_eq!(window.count("#curves .chart .raw"), 0);
    window.fill("#smooth", "4");
}

/// Row 4.
fn the_timeline_is_walked_by_keys(window: &Window) {
    let chosen = || window.text("#chosen");
    window.focus("#timeline svg[role=slider]");
    window.key("Home");
    let first = chosen();
    window.key("ArrowRight");
    assert!(first.starts_with("step ") && chosen().starts_with("step ") && chosen() != first, "{first}");
    window.key("End");
    assert!(chosen().starts_with("step 600 ") && chosen().contains("NaN"), "{}", chosen());
    window.choose("#timeline", "lanes", "one");
    window.choose("#timeline", "lanes", "each");
    assert_eq!(window.count("#timeline .kept"), window.count("#checkpoints tbody tr"));
    window.focus("#timeline svg[role=slider]");
    window.key("Escape");
}

/// Row 5.
fn the_heat_map_opens_histograms(window: &Window) {
    let rows = || window.count("#layers .names button");
    assert!(window.text("#cell").starts_with("First NaN or infinity: layers.4.mlp.gate.weight at step 570"));
    assert!(window.text("#ridge h3").contains("layers.4.mlp.gate"), "{}", window.text("#ridge h3"));
    let folded = rows();
    window.js("[...document.querySelectorAll('#layers .bar > button')].at(-1).click()");
    window.settle();
    assert!(rows() > folded && rows() >= 25, "{} of {folded}", rows());
    window.focus("#layers svg.over");
    window.key("Home");
    window.key("ArrowDown");
    let before = window.text("#cell");
    window.key("ArrowRight");
    assert_ne!(window.text("#cell"), before);
    window.key("Enter");
    for measure in ["norm", "std", "zeros", "update"] {
        window.choose("#layers", "measure", measure);
        assert!(!window.text("#layers .legend").is_empty());
    }
    assert!(window.count("#ridge svg path") >= 5, "a ridge for each checkpoint");
    assert_eq!(window.count("#layers .nancell"), 1, "the legend says what the cross is");
}

/// Row 6.
fn tensors_are_filtered_and_walked(window: &Window) {
    let counted = || window.text("#tensors .bar .muted");
    window.js("document.activeElement.blur()");
    window.key("/");
    assert_eq!(window.js("document.activeElement.id"), "tfilter");
    window.fill("#tfilter", "layers.4 gate");
    assert_eq!(counted(), "2 of 49 tensors match");
    window.fill("#tfilter", "zzz");
    assert!(window.text("#tensors tbody").contains("No tensor matches “zzz”. Clear the filter"));
    window.click("#tensors tbody button");
    assert_eq!(counted(), "49 tensors");
    let rows = || window.count("#tensors tbody tr");
    window.focus("#tensors tbody tr[data-path=model]");
    window.key("ArrowLeft");
    let folded = rows();
    window.key("ArrowRight");
    assert!(rows() > folded);
    window.key("ArrowDown");
    assert_ne!(window.js("document.activeElement.dataset.path"), "model");
    window.click("#tensors th:nth-child(1) button");
    assert_eq!(window.js("document.querySelector('#tensors th').getAttribute('aria-sort')"), "ascending");
    window.choose("#tensors", "show", "flat");
    assert_eq!(rows(), 49);
    let names = window.texts("#tensors tbody td:first-child");
    assert!(names[0] < names[48], "{names:?}");
    window.choose("#tensors", "show", "tree");
}

/// Row 7.
fn the_treemap_draws_every_byte(window: &Window) {
    let area = || {
        window.number(
            "[...document.querySelectorAll('#map > .d0')].reduce((a, e) => a + e.dataset.w * e.dataset.h, 0)",
        )
    };
    let frame = || {
        window.number(
            "document.querySelector('#map').clientWidth * document.querySelector('#map').clientHeight",
        )
    };
    assert!((area() / frame() - 1.0).abs() < 0.03, "{} of {}", area(), frame());
    let crumbs = window.text("#crumbs");
    window.click("#map > .d0");
    assert_ne!(window.text("#crumbs"), crumbs);
    assert!((area() / frame() - 1.0).abs() < 0.03, "{} of {}", area(), frame());
    window.click("#crumbs button");
    assert_eq!(window.text("#crumbs"), crumbs);
}

/// Row 8.
fn two_checkpoints_side_by_side(window: &Window) {
    let differ = || window.text("#differ");
    let options = window.count("#compare select:first-of-type option") / 2;
    assert!(differ().contains("differ") && options >= 4, "{options}: {}", differ());
    assert!(differ().contains("Configuration") && differ().contains("What every step changes"));
    window.fill("#compare label:nth-child(1) select", "0");
    window.fill("#compare label:nth-child(2) select", "0");
    assert!(differ().contains("The same checkpoint on both sides: nothing differs."));
    window.fill("#compare label:nth-child(1) select", "2");
    assert!(differ().contains("This goes back in time."), "{}", differ());
    window.choose("#compare", "part", "optimizer");
    let rows = || window.count("#differ tbody tr");
    let before = rows();
    window.click("#differ tbody button");
    assert_ne!(rows(), before, "a module folds");
}

/// Row 9.
fn checkpoints_are_filtered_and_found(window: &Window) {
    window.fill("#cfilter", "best");
    let best = window.count("#checkpoints tbody tr");
    assert_eq!(best, 2);
    window.fill("#cfilter", "");
    let columns = window.texts("#checkpoints th");
    let column = columns.iter().position(|title| title == "val_accuracy").expect("a column") + 1;
    window.click(&format!("#checkpoints th:nth-child({column}) button"));
    let first = window.text(&format!("#checkpoints tbody tr:first-child td:nth-child({column})"));
    assert!(first.starts_with("best "), "{first}");
    assert!(window.count("#checkpoints .bad") > 0, "damage and NaN are red");
    window.js("location.hash = '#c600'");
    window.settle();
    assert_eq!(window.text("tr.on td"), "600");
}

/// Row 11; open tables stay open when the page grows.
fn every_chart_has_its_table(window: &Window) {
    for index in 0..window.count("details.alt") {
        window.js(&format!("document.querySelectorAll('details.alt')[{index}].open = true"));
        window.settle();
        let rows = window.number(&format!(
            "document.querySelectorAll('details.alt')[{index}].querySelectorAll('tbody tr').length"
        ));
        let title = window.js(&format!(
            "document.querySelectorAll('details.alt')[{index}].querySelector('summary').textContent"
        ));
        assert!(rows > 0.0, "{title} is empty");
    }
    window.resize(1200, 2000);
    window.settle();
    assert_eq!(window.count("details.alt[open]"), window.count("details.alt"));
    window.resize(1400, 900);
    window.settle();
}

/// Row 12.
fn nothing_is_small_or_nameless(window: &Window) {
    let small = "[...document.querySelectorAll('body *')].filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && !['SCRIPT', 'STYLE'].includes(e.tagName) && !e.classList.contains('nancell') && parseFloat(getComputedStyle(e).fontSize) < 12).map((e) => e.outerHTML.slice(0, 80))";
    assert_eq!(window.js(small), json!([]), "text under 12 px");
    let nameless = "[...document.querySelectorAll('button, input, select, [tabindex=\"0\"]')].filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.closest('label')?.textContent.trim() || e.getAttribute('title'))).map((e) => e.outerHTML.slice(0, 80))";
    assert_eq!(window.js(nameless), json!([]), "controls without a name");
    assert_eq!(window.count("h1"), 1);
    assert!(window.count(".toc a[aria-current]") <= 1);
}

/// Row 10.
#[test]
fn the_theme_is_remembered_and_the_systems_followed() {
    let made = Made::new(&Plan { attempts: 1, saves: 4, ..Plan::usual() });
    let Some(window) = Window::open(&made.write(&made.page())) else { return };
    let background = || window.js("getComputedStyle(document.body).backgroundColor");
    window.system_theme("light");
    let light = background();
    window.system_theme("dark");
    let dark = background();
    assert_ne!(light, dark, "auto follows the system");
    window.system_theme("light");
    let heat = "document.querySelector('.heat canvas').toDataURL()";
    let before = window.js(heat);
    window.click("#theme");
    assert_eq!((background(), window.text("#theme").as_str()), (dark.clone(), "Theme: dark"));
    assert_ne!(window.js(heat), before, "the heat map has the theme's colours");
    window.reload();
    assert_eq!(background(), dark, "remembered");
    for picture in [window.look("theme", 1280, 900, "light"), window.look("theme", 400, 800, "dark")] {
        assert!(picture.colours() > 50, "{} colours: is it blank?", picture.colours());
        assert!(picture.brightness() < 80.0, "{}", picture.brightness());
    }
}

/// Row 14: hostile names.
#[test]
fn hostile_names_stay_text_in_the_page() {
    let run = Run::new(12);
    run.damage("0002-0000000012.tkeep");
    let path = run.0.join("report.html");
    std::fs::write(&path, run.page()).unwrap();
    let Some(window) = Window::open(&format!("file://{}", path.display())) else { return };
    assert!(window.text("h1").contains("<script>") || window.text("h1").contains("script"));
    assert!(window.text(".say").starts_with("It resumes from step 11"), "{}", window.text(".say"));
    window.fill("#tfilter", "script");
    assert!(window.text("#tensors tbody").contains("<script>alert(1)"), "{}", window.text("#tensors tbody"));
    assert_eq!(window.too_wide(), [""; 0]);
    let heard: Vec<String> =
        window.heard().into_iter().filter(|heard| !heard.starts_with("file://")).collect();
    assert_eq!(heard, [""; 0]);
}

/// Row 14: many checkpoints in many attempts.
#[test]
fn a_thousand_checkpoints_in_forty_attempts_are_drawn() {
    let plan = Plan {
        attempts: 40,
        saves: 1_160,
        every: 1,
        layers: 1,
        nan_from: None,
        keep: tensorkeep::Keep::all(),
    };
    let made = Made::new(&plan);
    let page = made.page();
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    let Some(window) = Window::open(&made.write(&page)) else { return };
    let lanes = || window.count("#timeline .lanes text.s");
    assert_eq!(lanes(), 6, "the middle shares one");
    let unfold = "[...document.querySelectorAll('#timeline .bar > button')].at(-1).click()";
    window.js(unfold);
    window.settle();
    assert_eq!(lanes(), 40);
    assert_eq!(window.count("#checkpoints tbody tr"), 200);
    window.click("#all-rows");
    assert_eq!(window.count("#checkpoints tbody tr"), 1_160);
    assert!(window.text("#layers .sec p").contains("64 of the 1,160 kept checkpoints"));
    assert_eq!(window.too_wide(), [""; 0]);
}

/// Row 14: many tensors.
#[test]
fn twenty_thousand_tensors_are_drawn_and_found() {
    let plan = Plan { attempts: 1, saves: 2, layers: 2_500, ..Plan::usual() };
    let made = Made::new(&plan);
    let page = made.page();
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    let Some(window) = Window::open(&made.write(&page)) else { return };
    window.fill("#tfilter", "layers.1234.mlp.gate");
    assert_eq!(window.text("#tensors .bar .muted"), "2 of 20,001 tensors match");
    window.fill("#tfilter", "");
    let share = "(() => { const m = document.querySelector('#map'); return [...m.querySelectorAll(':scope > .d0')].reduce((a, e) => a + e.dataset.w * e.dataset.h, 0) / (m.clientWidth * m.clientHeight) })()";
    assert!((window.number(share) - 1.0).abs() < 0.03, "every byte has its area");
}

/// Row 14: no checkpoint; and row 15: what was true when the page was written.
#[test]
fn states_are_said_also_a_day_later() {
    let made = Made::new(&Plan { attempts: 1, saves: 0, ..Plan::usual() });
    let Some(window) = Window::open(&made.write(&made.page())) else { return };
    assert_eq!(window.text(".say"), "Nothing to resume from: no checkpoint was saved yet.");
    assert_eq!(window.count("main section"), 1, "sections without data are left out");
    let made = Made::new(&Plan { attempts: 1, saves: 4, ..Plan::usual() });
    let page = made.page();
    window.go(&made.write(&page));
    assert_eq!(window.text(".state b"), "running");
    let generated = page.split("\"generated\":").nth(1).unwrap();
    let generated: u64 = generated[..generated.find(',').unwrap()].parse().unwrap();
    let old =
        page.replace(&format!("\"generated\":{generated}"), &format!("\"generated\":{}", generated - 86_400));
    window.go(&made.write(&old));
    assert_eq!(window.text(".state b"), "was running when this page was written");
    assert!(window.text("#written").contains("page written 24 h ago"), "{}", window.text("#written"));
    window.go(&made.write(&made.page_with(&Options::titled("again"))));
    assert_eq!(window.heard().iter().filter(|heard| !heard.starts_with("file://")).count(), 0);
}
