//! Debian's Chromium, without a screen, in a root of its own and in the network of another machine; driven by WebDriver.

use super::Machine;
use super::booted::Booted;
use super::installed::{PASSWORD, SUPERUSER};
use super::site::URL;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PACKAGES: [&str; 4] = ["chromium", "chromium-driver", "chromium-sandbox", "fonts-dejavu-core"];

const PORT: u16 = 9515;

/// The name under which WebDriver gives an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How long a page may take on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one window.
#[derive(Debug)]
pub struct Browser<'a> {
    machine: &'a Booted,
    session: String,
    driver: Child,
    /// What it stands on; everything of it ends when this does.
    root: Machine,
}

impl Drop for Browser<'_> {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

impl<'a> Browser<'a> {
    /// Opens one that sees the network of a machine.
    pub fn open(machine: &'a Booted) -> Browser<'a> {
        let root = Machine::start(&PACKAGES).unwrap();
        let network = format!("--net=/proc/{}/ns/net", machine.first().unwrap());
        let driver = Command::new("nsenter")
            .args(["--mount", "--ipc", "--uts", "--pid", &network])
            .args(["--target", &root.first.to_string(), "--"])
            .args(["chromedriver", &format!("--port={PORT}")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Browser { machine, session: String::new(), driver, root };
        let start = Instant::now();
        while machine.connect(PORT).is_err() {
            assert!(start.elapsed() < PATIENCE, "chromedriver did not come");
            std::thread::sleep(Duration::from_millis(100));
        }
        let answer = browser.ask(
            "POST",
            "/session",
            &json!({"capabilities": {"alwaysMatch": {
                "acceptInsecureCerts": true,
                "goog:chromeOptions": {"args": [
                    "--headless=new",
                    // Everything in this root is the browser's own.
                    "--no-sandbox",
                    "--disable-gpu",
                    "--hide-scrollbars",
                    "--window-size=1000,640",
                ]},
            }}}),
        );
        browser.session = format!("/session/{}", answer["sessionId"].as_str().unwrap());
        browser
    }

    /// Goes to an address and waits until the page is there.
    pub fn go(&self, address: &str) {
        self.post("/url", &json!({ "url": address }));
    }

    /// The superuser's first login.
    pub fn log_in(&self) {
        self.go(&format!("{URL}login"));
        self.enter("input[name=username]", SUPERUSER);
        self.enter("input[name=password]", PASSWORD);
        self.click("[type=submit]");
        // Asked once.
        self.wait_for_text("I agree to these terms and conditions");
        self.click("[type=submit]");
        self.wait_for_text("CamCOPS web view: Main menu");
    }

    /// Where it is.
    pub fn address(&self) -> String {
        self.get("/url")
    }

    /// What one can read on the page.
    pub fn text(&self) -> String {
        // In one step: the page may be replaced by the next one at any moment.
        let script = "return document.body ? document.body.innerText : ''";
        let text = self.post("/execute/sync", &json!({"script": script, "args": []}));
        text.as_str().unwrap().to_owned()
    }

    /// Types into a field.
    pub fn enter(&self, css: &str, text: &str) {
        let field = self.wait_for(css);
        self.post(&format!("/element/{field}/value"), &json!({ "text": text }));
    }

    /// Clicks on something.
    pub fn click(&self, css: &str) {
        let what = self.wait_for(css);
        self.post(&format!("/element/{what}/click"), &json!({}));
    }

    /// Whether the page has something.
    pub fn shows(&self, css: &str) -> bool {
        self.element(css).is_some()
    }

    /// Waits until the page has something.
    pub fn wait_for(&self, css: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(element) = self.element(css) {
                return element;
            }
            if start.elapsed() > PATIENCE {
                panic!("no {css} on {}:\n{}", self.address(), self.text());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until one can read something on the page.
    pub fn wait_for_text(&self, what: &str) {
        let start = Instant::now();
        while !self.text().contains(what) {
            if start.elapsed() > PATIENCE {
                panic!("no \"{what}\" on {}:\n{}", self.address(), self.text());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A file in the root in which it runs.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.path(inside)
    }

    /// How large a page is shown, in points.
    pub fn resize(&self, width: u32, height: u32) {
        // A window has something around the page.
        self.post("/window/rect", &json!({ "width": width, "height": height }));
        let script = "return [window.outerWidth - window.innerWidth, window.outerHeight - window.innerHeight]";
        let around = self.post("/execute/sync", &json!({ "script": script, "args": [] }));
        let whole = |of: usize, page: u32| u64::from(page) + around[of].as_u64().unwrap();
        self.post("/window/rect", &json!({ "width": whole(0, width), "height": whole(1, height) }));
    }

    /// A picture of what it shows, as a PNG file.
    pub fn picture(&self) -> Vec<u8> {
        from_base64(&self.get("/screenshot"))
    }

    fn element(&self, css: &str) -> Option<String> {
        let found = self.post("/elements", &json!({"using": "css selector", "value": css}));
        Some(found.get(0)?[ELEMENT].as_str()?.to_owned())
    }

    fn get(&self, path: &str) -> String {
        let value = self.ask("GET", &format!("{}{path}", self.session), &Value::Null);
        value.as_str().unwrap().to_owned()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.ask("POST", &format!("{}{path}", self.session), body)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let mut connection = self.machine.connect(PORT).unwrap();
        connection.set_read_timeout(Some(PATIENCE * 2)).unwrap();
        write!(
            connection,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let answer = answer_of(&mut connection);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let value = answer["value"].clone();
        assert!(value.get("error").is_none(), "{method} {path}: {value}");
        value
    }
}

/// The body of an answer: as long as its header says, for the connection may stay open.
fn answer_of(connection: &mut impl Read) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 1 << 14];
    loop {
        let text = String::from_utf8_lossy(&all);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map(|(_, length)| length.trim().parse::<usize>().unwrap());
            if length.is_some_and(|length| body.len() >= length) {
                return body.to_owned();
            }
        }
        let read = connection.read(&mut piece).unwrap();
        assert_ne!(read, 0, "the connection ended: {text}");
        all.extend_from_slice(&piece[..read]);
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut held) = (0_u32, 0);
    for digit in text.bytes() {
        let Some(value) = DIGITS.iter().position(|known| *known == digit) else {
            continue;
        };
        bits = (bits << 6) | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}
