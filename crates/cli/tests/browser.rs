//! The page in a real browser: opened, looked at in both themes and two widths, sorted, clicked,
//! printed; nothing asked of the network, nothing complained of. Skipped where there is no
//! Chromium. With `TENSORKEEP_SCREENSHOTS=DIR` the pictures stay, for eyes.

#[path = "common/chromium.rs"]
mod chromium;
mod common;

use chromium::Chromium;
use common::Run;
use serde_json::{Value as Json, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A page, and what the browser complained of or asked for.
struct Window(RefCell<Chromium>);

impl Window {
    /// None where there is no Chromium.
    fn open(url: &str) -> Option<Self> {
        let Some(mut browser) = Chromium::start() else {
            eprintln!("skipped: no Chromium; `apt-get install --no-install-recommends chromium` brings one");
            return None;
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.call("Page.navigate", json!({ "url": url }));
        browser.wait_for("Page.loadEventFired");
        Some(Self(RefCell::new(browser)))
    }

    fn call(&self, method: &str, params: Json) -> Json {
        self.0.borrow_mut().call(method, params)
    }

    fn js(&self, expression: &str) -> Json {
        let mut answer =
            self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Something of every element of a selector.
    fn each(&self, selector: &str, of: &str) -> Vec<Json> {
        let all = format!("[...document.querySelectorAll({selector:?})].map((e) => {of})");
        self.js(&all).as_array().expect("a list").clone()
    }

    fn texts(&self, selector: &str) -> Vec<String> {
        self.each(selector, "e.textContent").iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// By the mouse, in the middle of it.
    fn click(&self, selector: &str) {
        let place = self.js(&format!(
            "{{ const e = document.querySelector({selector:?}); e.scrollIntoView({{ block: 'center' }}); \
             const r = e.getBoundingClientRect(); [r.x + r.width / 2, r.y + r.height / 2] }}"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event =
                json!({ "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    fn look(&self, width: u32, height: u32, theme: &str) -> Picture {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({ "name": "prefers-color-scheme", "value": theme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
        let bytes = bytes_of(&self.call("Page.captureScreenshot", json!({ "format": "png" })));
        if let Some(folder) = std::env::var_os("TENSORKEEP_SCREENSHOTS") {
            let name = format!("{theme}-{width}x{height}.png");
            std::fs::write(PathBuf::from(folder).join(name), &bytes).unwrap();
        }
        Picture::decode(&bytes)
    }

    /// Complaints, and requests.
    fn heard(&self) -> Vec<String> {
        let said = |event: &Json| match event["method"].as_str()? {
            "Network.requestWillBeSent" => Some(event["params"]["request"]["url"].as_str()?.to_owned()),
            "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => {
                Some(event.to_string())
            }
            _ => None,
        };
        self.0.borrow().events.iter().filter_map(said).collect()
    }
}

/// The answer's base64.
fn bytes_of(answer: &Json) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let text = answer["data"].as_str().expect("data").trim_end_matches('=').as_bytes();
    let four = |letters: &[u8]| {
        let bits = letters.iter().fold(0_u32, |bits, &letter| bits << 6 | u32::from(digit(letter)));
        let bits = bits << (6 * (4 - letters.len()));
        bits.to_be_bytes()[1..letters.len()].to_vec()
    };
    text.chunks(4).flat_map(four).collect()
}

/// A screenshot.
struct Picture {
    width: u32,
    height: u32,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    fn decode(bytes: &[u8]) -> Self {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut buffer = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut buffer).unwrap();
        let samples = info.color_type.samples();
        assert!(samples >= 3, "{info:?}");
        let pixels = buffer[..info.buffer_size()].chunks_exact(samples);
        Self { width: info.width, height: info.height, pixels: pixels.map(|p| [p[0], p[1], p[2]]).collect() }
    }

    fn colours(&self) -> usize {
        self.pixels.iter().collect::<BTreeSet<_>>().len()
    }

    fn brightness(&self) -> f64 {
        let sum: u64 = self.pixels.iter().flatten().map(|&part| u64::from(part)).sum();
        sum as f64 / (3 * self.pixels.len()) as f64
    }
}

#[test]
fn the_page_of_fifty_checkpoints_works_in_a_browser() {
    let run = Run::new(50);
    run.damage("0002-0000000050.tkeep");
    let page = run.page();
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    let path = run.0.join("report.html");
    std::fs::write(&path, page).unwrap();
    let url = format!("file://{}", path.display());
    let Some(window) = Window::open(&url) else { return };

    looks_right(&window);
    sorts(&window);
    picks_pairs(&window);
    the_button_changes_the_theme(&window);
    prints(&window);

    assert_eq!(window.heard(), [url], "one request, and no complaint");
}

/// Both themes, a desk's and a telephone's width.
fn looks_right(window: &Window) {
    for (width, height) in [(1280, 900), (400, 800)] {
        let (light, dark) = (window.look(width, height, "light"), window.look(width, height, "dark"));
        for picture in [&light, &dark] {
            assert_eq!((picture.width, picture.height), (width, height));
            assert!(picture.colours() > 50, "{} colours: is it blank?", picture.colours());
        }
        assert!(
            light.brightness() > 180.0 && dark.brightness() < 80.0,
            "{} {}",
            light.brightness(),
            dark.brightness()
        );
        let overflow = window.js("document.documentElement.scrollWidth - innerWidth");
        assert!(overflow.as_f64().unwrap() <= 0.0, "the page is {overflow} wider than {width}");
        let verdict = window.js("document.querySelector('.verdict').getBoundingClientRect().bottom");
        assert!(verdict.as_f64().unwrap() < f64::from(height) / 2.0, "whether it resumes is seen at once");
    }
    // As a whole, for eyes.
    let tall = window.js("document.documentElement.scrollHeight").as_u64().unwrap() as u32;
    window.look(400, tall.min(12_000), "light");
    window.look(1280, 900, "light");
    let tall = window.js("document.documentElement.scrollHeight").as_u64().unwrap() as u32;
    window.look(1280, tall.min(12_000), "dark");
    window.look(1280, tall.min(12_000), "light");
    let paint = "getComputedStyle(document.querySelector('.wrong')).color";
    assert_ne!(
        window.js(paint),
        window.js("getComputedStyle(document.body).color"),
        "bad things have a colour"
    );
}

fn sorts(window: &Window) {
    let first = |column: usize| window.texts(&format!("#tensors tbody td:nth-child({column})"));
    let names = first(1);
    assert_eq!(names[0], "broken.weight", "what holds NaN comes first");
    let size = "#tensors th:nth-child(5)";
    window.click(size);
    let sorted = || {
        let keys = window.each("#tensors td:nth-child(5)", "Number(e.dataset.k)");
        keys.iter().map(|key| key.as_f64().unwrap()).collect::<Vec<f64>>()
    };
    let up = sorted();
    assert!(up.len() > 20 && up.is_sorted(), "{up:?}");
    window.click(size);
    assert!(sorted().iter().rev().is_sorted(), "a second click turns it round");
    window.click("#tensors th:nth-child(1)");
    let layers: Vec<String> = first(1).into_iter().filter(|name| name.starts_with("layer.")).collect();
    assert_eq!((layers[1].as_str(), layers[2].as_str()), ("layer.1.weight", "layer.2.weight"), "2 before 10");
    assert_eq!(window.js("document.querySelector('#tensors th').getAttribute('aria-sort')"), "ascending");
}

fn picks_pairs(window: &Window) {
    let shown = || {
        window.js("[...document.querySelectorAll('.pair:not([hidden])')].map((e) => e.dataset.pair).join()")
    };
    assert_eq!(shown(), "0001-0000000001 0002-0000000049");
    window.click("circle.pick[data-name='0001-0000000025']");
    assert_eq!(shown(), "0001-0000000025 0002-0000000049");
    window.click("circle.pick[data-name='0001-0000000001']");
    assert_eq!(shown(), "0001-0000000001 0001-0000000025", "older first, whichever was clicked first");
    window.js("{ const to = document.querySelectorAll('#diff select')[1]; to.value = '0001-0000000025'; to.dispatchEvent(new Event('change')); }");
    assert_eq!(shown(), "", "one with itself is no pair");
    assert_eq!(window.js("document.querySelector('#diff .same').hidden"), false);
    window.click("circle.pick[data-name='0001-0000000001']");
    assert_eq!(window.js("document.querySelectorAll('circle.picked').length"), 2);
}

fn the_button_changes_the_theme(window: &Window) {
    let background = || window.js("getComputedStyle(document.body).backgroundColor");
    let before = background();
    window.click("#theme");
    assert_ne!(background(), before);
    window.click("#theme");
    assert_eq!(background(), before);
}

fn prints(window: &Window) {
    let pdf = bytes_of(&window.call("Page.printToPDF", json!({})));
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 20_000, "{} bytes", pdf.len());
}
