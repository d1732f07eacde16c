//! A headless Chromium, driven by its debugging protocol over a pair of pipes.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A running browser with one page; it ends when this is dropped.
pub(crate) struct Browser {
    process: Child,
    asks: ChildStdin,
    told: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` where there is no Chromium on this host.
    pub(crate) fn start() -> Option<Self> {
        Command::new("chromium").arg("--version").output().ok()?;
        let profile = tempfile::tempdir().expect("a directory");
        // The browser talks on descriptors 3 and 4; its own output is of no interest.
        let script = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut process = Command::new("sh")
            .args(["-c", script, "chromium", "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let asks = process.stdin.take().expect("piped");
        let told = BufReader::new(process.stdout.take().expect("piped"));
        let mut browser = Self { process, asks, told, session: None, last: 0, _profile: profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let target = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", target);
        browser.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        browser.ask("Page.enable", json!({}));
        browser.ask("Runtime.enable", json!({}));
        Some(browser)
    }

    /// Asks, and waits for the answer; what the page reports as an error meanwhile fails the test.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.asks.write_all(&bytes).expect("the browser runs");
        loop {
            let mut bytes = Vec::new();
            self.told.read_until(0, &mut bytes).expect("the browser runs");
            assert_eq!(bytes.pop(), Some(0), "the browser has ended");
            let told: Value = serde_json::from_slice(&bytes).expect("JSON");
            assert_ne!(told["method"], "Runtime.exceptionThrown", "{told:#}");
            if told["id"] == self.last {
                assert!(told["error"].is_null(), "{method}: {told:#}");
                return told["result"].clone();
            }
        }
    }

    pub(crate) fn open(&mut self, url: &str) {
        let opened = self.ask("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{opened}");
    }

    /// How large the screen is, and whether it is dark.
    pub(crate) fn screen(&mut self, width: u32, height: u32, dark: bool) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask("Emulation.setEmulatedMedia", features);
    }

    /// What an expression gives, once it is a promise's result.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let how = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let told = self.ask("Runtime.evaluate", how);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told:#}");
        told["result"]["value"].clone()
    }

    /// Returns once `condition` holds; it is looked at whenever the page has changed.
    pub(crate) fn until(&mut self, condition: &str) {
        let held = self.value(&format!(
            "new Promise((done, fail) => {{
                const holds = () => {{ try {{ return {condition}; }} catch {{ return false; }} }};
                const late = setTimeout(() => done(document.body ? document.body.innerText : ''), 30000);
                const look = () => {{ if (holds()) {{ clearTimeout(late); watch.disconnect(); done(true); }} }};
                const watch = new MutationObserver(look);
                watch.observe(document, {{ subtree: true, childList: true, characterData: true, attributes: true }});
                look();
            }})"
        ));
        assert_eq!(held, Value::Bool(true), "{condition} never came true");
    }

    /// Keeps a picture of the page where `SUPERSYNC_SCREENSHOTS` names a directory for them.
    pub(crate) fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("SUPERSYNC_SCREENSHOTS") else { return };
        let told = self.ask("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let data = told["data"].as_str().expect("a picture");
        let mut decode = Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let decode = decode.as_mut().expect("base64");
        let mut input = decode.stdin.take().expect("piped");
        let data = data.to_owned();
        let writer = std::thread::spawn(move || input.write_all(data.as_bytes()));
        let mut output = decode.stdout.take().expect("piped");
        let mut file = std::fs::File::create(Path::new(&directory).join(format!("{name}.png"))).expect("a file");
        std::io::copy(&mut output, &mut file).expect("written");
        writer.join().expect("no panic").expect("written");
        decode.wait().expect("it ends");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.asks.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        // It ends by itself then; its end closes the pipe, so that nothing of it is left when its profile goes.
        let _ = std::io::copy(&mut self.told, &mut std::io::sink());
        let _ = self.process.wait();
    }
}
