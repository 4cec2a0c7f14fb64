//! A real Chromium, driven over `WebDriver`: what a person sees and does.

use std::fmt::Debug;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use url::Url;

use super::eventually;
use super::program::Folder;
use super::users::User;

/// Longest time that the browser may take for one command.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

/// Number of times that a browser is started until it opens a session.
const STARTS_MAX: usize = 3;

/// Longest time that a browser may take to open a session.
const START_TIMEOUT: Duration = Duration::from_secs(40);

/// Folder of downloads in the profile.
const DOWNLOADS: &str = "downloads";

pub struct Browser {
    client: Client,
    /// Ends the browser, also when no session could be opened.
    _driver: Driver,
    profile: Folder,
}

/// How the browser is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    Desktop,
    Dark,
    Phone,
    /// Narrowest width of WCAG 2.2.
    Narrow,
}

impl Look {
    /// Width of the window in CSS pixels.
    const fn width(self) -> u64 {
        match self {
            Self::Desktop | Self::Dark => 1_200,
            Self::Phone => 390,
            Self::Narrow => 320,
        }
    }
}

/// Script that returns accessibility violations: missing labels and names, heading order, low contrast.
const ACCESSIBLE: &str = r"
    const wrong = [];
    for (const input of document.querySelectorAll('input, select, textarea')) {
        if (!input.labels?.length) wrong.push(`no label: ${input.name}`);
    }
    for (const button of document.querySelectorAll('button, a')) {
        if (!button.textContent.trim()) wrong.push(`no name: ${button.outerHTML}`);
    }
    let level = 0;
    for (const heading of document.querySelectorAll('h1, h2, h3')) {
        const next = Number(heading.tagName[1]);
        if (next > level + 1) wrong.push(`heading jumps: ${heading.textContent}`);
        level = next;
    }
    if (!document.documentElement.lang) wrong.push('no language');
    const channels = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = channels(color).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const color = getComputedStyle(at).backgroundColor;
            if ((channels(color)[3] ?? 1) > 0) return color;
        }
        return 'rgb(255, 255, 255)';
    };
    for (const element of document.querySelectorAll('main *, header *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.offsetParent) continue;
        const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < 4.5) wrong.push(`contrast ${contrast.toFixed(1)}: ${element.textContent.trim().slice(0, 30)}`);
    }
    return wrong;
";

impl Browser {
    /// Starts a browser. Chromium does not start every time on a busy machine, so a failed start is repeated.
    pub async fn start(look: Look) -> Self {
        let mut failures = Vec::new();
        while failures.len() < STARTS_MAX {
            match Self::try_start(look).await {
                Ok(browser) => return browser,
                Err(failure) => failures.push(failure),
            }
        }
        panic!("the browser did not start: {failures:#?}");
    }

    async fn try_start(look: Look) -> Result<Self, String> {
        let mut driver = Driver::start();
        let port = port_of(driver.0.stdout.as_mut().unwrap());
        let url = format!("http://127.0.0.1:{}", port.ok_or("chromedriver does not listen")?);
        let profile = Folder::new();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities(look, &profile));
        let session = tokio::time::timeout(START_TIMEOUT, builder.connect(&url)).await;
        let client = session
            .map_err(|_elapsed| format!("no session within {START_TIMEOUT:?}"))?
            .map_err(|error| error.to_string())?;
        Ok(Self { client, _driver: driver, profile })
    }

    pub async fn open(&self, url: &str) {
        within_timeout(self.client.goto(url)).await;
    }

    /// Runs a script in the page; `return` gives a value back.
    pub async fn run(&self, script: &str) -> Value {
        within_timeout(self.client.execute(script, Vec::new())).await
    }

    async fn find(&self, css: &str) -> Element {
        within_timeout(self.client.find(Locator::Css(css))).await
    }

    /// Clicks as a person does: not before the button is enabled.
    pub async fn click(&self, css: &str) {
        let element = self.find(css).await;
        eventually("the button is enabled", async || within_timeout(element.is_enabled()).await)
            .await;
        within_timeout(element.click()).await;
    }

    pub async fn write(&self, css: &str, text: &str) {
        let element = self.find(css).await;
        within_timeout(element.clear()).await;
        within_timeout(element.send_keys(text)).await;
    }

    /// Lets the response of the next POST get lost, although the request arrives.
    pub async fn lose_next_answer(&self) {
        let lossy = "
            const real = window.fetch;
            window.fetch = async (...request) => {
                const answer = await real(...request);
                if (request[1]?.method !== 'POST') return answer;
                window.fetch = real;
                throw new TypeError('the connection was lost');
            };";
        self.run(lossy).await;
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let presses = keys
            .chars()
            .flat_map(|value| [KeyAction::Down { value }, KeyAction::Up { value }])
            .fold(KeyActions::new("keyboard".to_owned()), KeyActions::then);
        within_timeout(self.client.perform_actions(presses)).await;
    }

    /// The visible text of an element; empty when there is no such element, or when it is hidden.
    pub async fn text(&self, css: &str) -> String {
        let script = format!(
            "const found = document.querySelector({});
            return found?.checkVisibility() ? found.innerText : '';",
            json!(css)
        );
        self.run(&script).await.as_str().unwrap_or_default().to_owned()
    }

    /// Signs in with the form of a page, and waits until the page shows the user.
    pub async fn sign_in(&self, name: &str, user: &User) {
        self.click("#sign-in-link").await;
        self.see("#sign-in-title", "Sign in").await;
        self.write("#sign-in [name=username]", name).await;
        self.write("#sign-in [name=password]", &user.password).await;
        self.click("#sign-in button").await;
        self.see("#who", &format!("{name} (user {})", user.id)).await;
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

    /// The messages on the console since the last call: a good page writes none.
    async fn console(&self) -> Vec<Value> {
        let log = within_timeout(self.client.issue_cmd(ReadConsole)).await;
        log.as_array().cloned().unwrap_or_default()
    }

    /// The messages on the console, content security policy included, without those that contain `expected`.
    pub async fn complaints(&self, expected: &str) -> Vec<Value> {
        let mut log = self.console().await;
        log.retain(|line| !line["message"].as_str().unwrap().contains(expected));
        log
    }

    pub async fn screenshot(&self) -> Vec<u8> {
        within_timeout(self.client.screenshot()).await
    }

    /// Takes a screenshot and, with `BLESS` set, writes it to `docs/screenshots`.
    pub async fn picture(&self, name: &str) {
        let image = self.screenshot().await;
        assert!(image.len() > 10_000, "there is something to see");
        if std::env::var_os("BLESS").is_some() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/screenshots");
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), image).unwrap();
        }
    }

    /// Asserts that the page has no accessibility violation, fits the width of the window, and has the colors of `look`.
    pub async fn assert_readable(&self, look: Look, what: &str) {
        let violations = [self.run(ACCESSIBLE).await, self.axe_violations().await];
        assert_eq!(violations, [json!([]), json!([])], "{what}, {look:?}");
        let width = self.run("return document.documentElement.scrollWidth").await;
        assert!(
            width.as_u64().unwrap() <= look.width(),
            "{what}, {look:?} scrolls sideways: {width}"
        );
        let dark = "return matchMedia('(prefers-color-scheme: dark)').matches";
        assert_eq!(self.run(dark).await, look == Look::Dark);
    }

    /// Waits for a downloaded file, and returns its content.
    pub async fn download(&self, name: &str) -> String {
        let path = self.profile.0.join(DOWNLOADS).join(name);
        let mut content = String::new();
        eventually(&format!("{name} is downloaded"), async || {
            content = std::fs::read_to_string(&path).unwrap_or_default();
            !content.is_empty()
        })
        .await;
        content
    }

    /// Returns the findings of axe-core: of every rule, those of level AAA and those it does not apply by default included.
    async fn axe_violations(&self) -> Value {
        let axe = axe();
        let script = "
            const values = axe.getRules().map(({ ruleId }) => ruleId);
            return axe.run({ runOnly: { type: 'rule', values } }).then(({ violations }) => violations
                .map(({ id, nodes }) => [id, ...nodes.map((node) => node.html)]));";
        self.run(&format!("{axe};{script}")).await
    }

    pub async fn close(self) {
        let _closed = self.client.clone().close().await;
    }
}

/// Returns the script of axe-core.
fn axe() -> &'static str {
    static AXE: OnceLock<String> = OnceLock::new();
    AXE.get_or_init(|| {
        let folder = super::program::tool_folder("axe_npm_tools");
        let path = folder.join("node_modules/axe-core/axe.min.js");
        std::fs::read_to_string(path).unwrap()
    })
}

/// The process of chromedriver and its browser.
struct Driver(Child);

impl Driver {
    fn start() -> Self {
        let driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // The browser and its helpers are in the group too, and end with it.
            .process_group(0)
            .spawn();
        Self(driver.expect("chromedriver is installed; scripts/test does that"))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        super::program::signal_group(self.0.id(), "KILL");
        let _status = self.0.wait();
    }
}

/// Returns the port that chromedriver says it listens on; `None` if it exits before that.
fn port_of(output: &mut ChildStdout) -> Option<u16> {
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    lines.find_map(|line| {
        let rest = line.split("on port ").nth(1)?;
        rest.trim_end_matches('.').parse::<u16>().ok().filter(|port| *port > 0)
    })
}

fn capabilities(look: Look, profile: &Folder) -> Capabilities {
    let downloads = profile.0.join(DOWNLOADS).display().to_string();
    let preferences = json!({ "download.default_directory": downloads });
    let mut options = json!({ "prefs": preferences, "args": [
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
        Look::Phone | Look::Narrow => {
            options["mobileEmulation"] = json!({ "deviceMetrics": { "width": look.width(), "height": 844, "pixelRatio": 2.0 } });
        }
    }
    let all = json!({
        "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
    });
    all.as_object().unwrap().clone()
}

async fn within_timeout<T, E: Debug>(command: impl Future<Output = Result<T, E>>) -> T {
    let outcome = tokio::time::timeout(COMMAND_TIMEOUT, command).await;
    outcome.expect("the browser answers in time").unwrap()
}

/// Chromium's own command for the messages on the console; `WebDriver` has none.
#[derive(Debug)]
struct ReadConsole;

impl WebDriverCompatibleCommand for ReadConsole {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!("session/{}/se/log", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _url: &Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(json!({ "type": "browser" }).to_string()))
    }
}
