//! A page in a browser, with a mouse, keys, and what it complained of or asked for.

use super::chromium::Chromium;
use serde_json::{Value as Json, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

pub struct Window(RefCell<Chromium>);

impl Window {
    /// None where there is no Chromium.
    pub fn open(url: &str) -> Option<Self> {
        let Some(mut browser) = Chromium::start() else {
            eprintln!("skipped: no Chromium; `apt-get install --no-install-recommends chromium` brings one");
            return None;
        };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        let window = Self(RefCell::new(browser));
        window.resize(1400, 900);
        window.go(url);
        Some(window)
    }

    pub fn go(&self, url: &str) {
        self.0.borrow_mut().events.retain(|event| event["method"] != "Page.loadEventFired");
        self.call("Page.navigate", json!({ "url": url }));
        self.0.borrow_mut().wait_for("Page.loadEventFired");
        self.settle();
    }

    pub fn reload(&self) {
        self.0.borrow_mut().events.retain(|event| event["method"] != "Page.loadEventFired");
        self.call("Page.reload", json!({}));
        self.0.borrow_mut().wait_for("Page.loadEventFired");
        self.settle();
    }

    pub fn call(&self, method: &str, params: Json) -> Json {
        self.0.borrow_mut().call(method, params)
    }

    pub fn js(&self, expression: &str) -> Json {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// Waits for two frames: what redraws has redrawn.
    pub fn settle(&self) {
        self.js("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(() => r(true))))");
    }

    pub fn number(&self, expression: &str) -> f64 {
        let value = self.js(expression);
        value.as_f64().unwrap_or_else(|| panic!("{expression}: {value}"))
    }

    pub fn text(&self, selector: &str) -> String {
        let value = self.js(&format!("document.querySelector({selector:?})?.textContent ?? 'nothing there'"));
        value.as_str().expect("text").to_owned()
    }

    pub fn count(&self, selector: &str) -> usize {
        self.number(&format!("document.querySelectorAll({selector:?}).length")) as usize
    }

    /// Something of every element of a selector.
    pub fn each(&self, selector: &str, of: &str) -> Vec<Json> {
        let all = format!("[...document.querySelectorAll({selector:?})].map((e) => {of})");
        self.js(&all).as_array().expect("a list").clone()
    }

    pub fn texts(&self, selector: &str) -> Vec<String> {
        self.each(selector, "e.textContent").iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    }

    /// A place in an element, by shares of its width and height.
    fn place(&self, selector: &str, across: f64, down: f64) -> (f64, f64) {
        // What comes into view may be drawn only then, and move the element.
        self.js(&format!(
            "document.querySelector({selector:?}).scrollIntoView({{ block: 'center', behavior: 'instant' }})"
        ));
        self.settle();
        let place = self.js(&format!(
            "{{ const r = document.querySelector({selector:?}).getBoundingClientRect(); \
             [r.x + r.width * {across}, r.y + r.height * {down}] }}"
        ));
        (place[0].as_f64().expect(selector), place[1].as_f64().expect(selector))
    }

    fn mouse(&self, kind: &str, (x, y): (f64, f64), buttons: u32, clicks: u32) {
        let button = if kind == "mouseMoved" && buttons == 0 { "none" } else { "left" };
        let event = json!({ "type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "clickCount": clicks });
        self.call("Input.dispatchMouseEvent", event);
    }

    pub fn click(&self, selector: &str) {
        self.click_at(selector, 0.5, 0.5);
    }

    pub fn click_at(&self, selector: &str, across: f64, down: f64) {
        let place = self.place(selector, across, down);
        self.mouse("mouseMoved", place, 0, 0);
        self.mouse("mousePressed", place, 1, 1);
        self.mouse("mouseReleased", place, 0, 1);
        self.settle();
    }

    pub fn double_click(&self, selector: &str) {
        let place = self.place(selector, 0.5, 0.5);
        for clicks in [1, 2] {
            self.mouse("mousePressed", place, 1, clicks);
            self.mouse("mouseReleased", place, 0, clicks);
        }
        self.settle();
    }

    pub fn hover(&self, selector: &str, across: f64, down: f64) {
        let place = self.place(selector, across, down);
        self.mouse("mouseMoved", place, 0, 0);
        self.settle();
    }

    pub fn drag(&self, selector: &str, from: f64, to: f64) {
        let (start, end) = (self.place(selector, from, 0.5), self.place(selector, to, 0.5));
        self.mouse("mouseMoved", start, 0, 0);
        self.mouse("mousePressed", start, 1, 1);
        for share in [0.3, 0.7, 1.0] {
            self.mouse("mouseMoved", (start.0 + (end.0 - start.0) * share, start.1), 1, 0);
        }
        self.mouse("mouseReleased", (end.0, start.1), 0, 1);
        self.settle();
    }

    pub fn focus(&self, selector: &str) {
        self.js(&format!("document.querySelector({selector:?}).focus()"));
    }

    /// A key, on what has the focus.
    pub fn key(&self, key: &str) {
        let text = if key.chars().count() == 1 { json!(key) } else { Json::Null };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            " " => 32,
            "PageUp" => 33,
            "PageDown" => 34,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_null() {
                event["text"] = text.clone();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
        self.settle();
    }

    /// Replaces the text of a field.
    pub fn fill(&self, selector: &str, text: &str) {
        self.js(&format!(
            "{{ const e = document.querySelector({selector:?}); e.value = {text:?}; e.dispatchEvent(new Event('input', {{ bubbles: true }})); e.dispatchEvent(new Event('change', {{ bubbles: true }})); }}"
        ));
        self.settle();
    }

    /// Presses the radio button with this value in a section.
    pub fn choose(&self, section: &str, label: &str, value: &str) {
        let found = self.js(&format!(
            "{{ const set = [...document.querySelectorAll('{section} fieldset')].find((f) => f.querySelector('legend').textContent === {label:?}); \
             const radio = set && [...set.querySelectorAll('input')].find((i) => i.value === {value:?}); radio?.click(); !!radio }}"
        ));
        assert_eq!(found, true, "{section} {label} {value}");
        self.settle();
    }

    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    pub fn system_theme(&self, theme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": theme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
        self.settle();
    }

    /// A screenshot. With `TENSORKEEP_SCREENSHOTS=DIR` it stays, for eyes.
    pub fn look(&self, name: &str, width: u32, height: u32, theme: &str) -> Picture {
        self.resize(width, height);
        self.system_theme(theme);
        self.settle();
        let bytes = bytes_of(&self.call("Page.captureScreenshot", json!({ "format": "png" })));
        if let Some(folder) = std::env::var_os("TENSORKEEP_SCREENSHOTS") {
            let name = format!("{name}-{theme}-{width}x{height}.png");
            std::fs::write(PathBuf::from(folder).join(name), &bytes).unwrap();
        }
        Picture::decode(&bytes)
    }

    /// The whole page, for eyes.
    pub fn look_at_all(&self, name: &str, width: u32, theme: &str) {
        self.look(name, width, 900, theme);
        let tall = self.number("document.documentElement.scrollHeight") as u32;
        self.look(name, width, tall.min(12_000), theme);
        self.resize(1400, 900);
        self.settle();
    }

    /// Complaints, and requests.
    pub fn heard(&self) -> Vec<String> {
        let said = |event: &Json| match event["method"].as_str()? {
            "Network.requestWillBeSent" => Some(event["params"]["request"]["url"].as_str()?.to_owned()),
            "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => {
                Some(event.to_string())
            }
            _ => None,
        };
        self.0.borrow().events.iter().filter_map(said).collect()
    }

    /// The widths at which the page would have to be scrolled sideways, with what sticks out.
    pub fn too_wide(&self) -> Vec<String> {
        // The innermost elements without which the page would be less wide.
        const STICKS_OUT: &str = "(() => {
            const root = document.documentElement, whole = root.scrollWidth;
            const without = (e) => {
                const display = e.style.display;
                e.style.display = 'none';
                const is_less = root.scrollWidth < whole;
                e.style.display = display;
                return is_less;
            };
            const guilty = [...document.querySelectorAll('body *')].filter(without);
            return guilty.filter((e) => !guilty.some((other) => other !== e && e.contains(other)))
                .map((e) => `${e.tagName} id=${e.id} class=${e.className}: ${whole}: ${e.textContent.slice(0, 40)}`).join(', ');
        })()";
        let what = |width: u32| {
            self.resize(width, 900);
            // Charts are drawn again behind the change of their width.
            let is_wide = || {
                self.settle();
                self.number("document.documentElement.scrollWidth - innerWidth") > 0.0
            };
            (0..20).all(|_| is_wide()).then(|| format!("{width}: {}", self.js(STICKS_OUT)))
        };
        let found = [1400, 900, 640, 400, 320].into_iter().filter_map(what).collect();
        self.resize(1400, 900);
        self.settle();
        found
    }

    pub fn prints(&self) {
        let pdf = bytes_of(&self.call("Page.printToPDF", json!({})));
        assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 10_000, "{} bytes", pdf.len());
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
pub struct Picture {
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
        Self { pixels: pixels.map(|p| [p[0], p[1], p[2]]).collect() }
    }

    pub fn colours(&self) -> usize {
        self.pixels.iter().collect::<BTreeSet<_>>().len()
    }

    pub fn brightness(&self) -> f64 {
        let sum: u64 = self.pixels.iter().flatten().map(|&part| u64::from(part)).sum();
        sum as f64 / (3 * self.pixels.len()) as f64
    }
}
