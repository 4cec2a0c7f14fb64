//! A real Chromium, driven by its own driver: what a person would see and do.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::eventually;
use super::program::Folder;

pub struct Browser {
    driver: Child,
    session: String,
    http: reqwest::Client,
    _profile: Folder,
}

/// How the browser is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Desktop,
    Dark,
    Phone,
}

impl Browser {
    pub async fn start(look: Look) -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // The browser and its helpers are in it too, and go with it.
            .process_group(0)
            .spawn()
            .expect("chromedriver is installed; scripts/test does that");
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.map_while(Result::ok).find_map(|line| {
            let rest = line.split("on port ").nth(1)?;
            rest.trim_end_matches('.').parse::<u16>().ok().filter(|port| *port > 0)
        });
        let profile = Folder::new();
        let mut options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--lang=en-US",
            "--window-size=1200,900", "--hide-scrollbars", "--force-color-profile=srgb",
            format!("--user-data-dir={}", profile.0.display()),
        ] });
        match look {
            Look::Desktop => {}
            Look::Dark => options["args"]
                .as_array_mut()
                .unwrap()
                .push(json!("--blink-settings=preferredColorScheme=0")),
            Look::Phone => {
                options["mobileEmulation"] =
                    json!({ "deviceMetrics": { "width": 390, "height": 844, "pixelRatio": 2.0 } });
            }
        }
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let http = reqwest::Client::builder().timeout(Duration::from_mins(1)).build().unwrap();
        let base = format!("http://127.0.0.1:{}", port.expect("it says where it listens"));
        let answer = http.post(format!("{base}/session")).json(&capabilities).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("{answer}"));
        Self { driver, session: format!("{base}/session/{id}"), http, _profile: profile }
    }

    async fn ask(&self, path: &str, body: Value) -> Result<Value, String> {
        let request = self.http.post(format!("{}/{path}", self.session)).json(&body);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        match answer["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", answer["value"]["message"])),
            None => Ok(answer["value"].clone()),
        }
    }

    pub async fn open(&self, url: &str) {
        self.ask("url", json!({ "url": url })).await.unwrap();
    }

    /// Runs a script in the page; `return` gives a value back.
    pub async fn run(&self, script: &str) -> Value {
        self.ask("execute/sync", json!({ "script": script, "args": [] })).await.unwrap()
    }

    async fn find(&self, css: &str) -> Result<String, String> {
        let found = self.ask("element", json!({ "using": "css selector", "value": css })).await?;
        Ok(found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned())
    }

    pub async fn click(&self, css: &str) {
        let element = self.find(css).await.unwrap();
        self.ask(&format!("element/{element}/click"), json!({})).await.unwrap();
    }

    pub async fn write(&self, css: &str, text: &str) {
        let element = self.find(css).await.unwrap();
        self.ask(&format!("element/{element}/clear"), json!({})).await.unwrap();
        self.ask(&format!("element/{element}/value"), json!({ "text": text })).await.unwrap();
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let presses: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key })))
            .collect();
        let actions =
            json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] });
        self.ask("actions", actions).await.unwrap();
    }

    /// The text that is seen; nothing when there is no such element.
    pub async fn text(&self, css: &str) -> String {
        let script = format!("return document.querySelector({})?.innerText ?? ''", json!(css));
        self.run(&script).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the text of an element contains this.
    pub async fn see(&self, css: &str, text: &str) {
        let mut last = String::new();
        let what = format!("{css} shows {text:?}");
        eventually(&what, async || {
            last = self.text(css).await;
            last.contains(text)
        })
        .await;
    }

    /// What the console was told: a good page says nothing.
    pub async fn console(&self) -> Vec<Value> {
        let log = self.ask("se/log", json!({ "type": "browser" })).await.unwrap();
        log.as_array().cloned().unwrap_or_default()
    }

    pub async fn screenshot(&self) -> Vec<u8> {
        let answer = self.http.get(format!("{}/screenshot", self.session)).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        STANDARD.decode(answer["value"].as_str().unwrap()).unwrap()
    }

    pub async fn close(self) {
        let _gone = self.http.delete(&self.session).send().await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        super::program::signal_group(self.driver.id(), "KILL");
        let _status = self.driver.wait();
    }
}
