//! Mail and chat: each combination of settings, and alerts that a real Alertmanager delivers to a real mail server and to
//! a receiver in the place of a chat.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use crate::generated_files::root;
use crate::harness::program::Folder;
use crate::harness::smtp::MailServer;
use crate::harness::{Client, eventually_within, free_address};
use crate::source::promql::TimeScale;
use crate::source::rules;
use crate::tools::{run, tool};

const PAGE_MAIL: (&str, &str) =
    ("ALERT_PAGE_MAIL", "Ada O'Neil <oncall@example.com>, b@example.com");
const TICKET_MAIL: (&str, &str) = ("ALERT_TICKET_MAIL", "team@example.com");
const SERVER: [(&str, &str); 2] =
    [("ALERT_SMTP", "smtp.example.com:587"), ("ALERT_MAIL_FROM", "alerts@example.com")];
const PASSWORD: &str = "correct horse battery";

/// Command that runs `alertmanager/start` of a folder with nothing but these settings in its environment.
fn start(scripts: &Path, folder: &Folder, settings: &[(&str, &str)]) -> Command {
    let bin = folder.0.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (name, program) in [("alertmanager", "prometheus-alertmanager"), ("amtool", "amtool")] {
        // A second command of the same test finds the link.
        let _exists = std::os::unix::fs::symlink(tool(program), bin.join(name));
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command
        .arg(scripts.join("start"))
        .env_clear()
        .env("PATH", path)
        .env("ALERT_RUN", &folder.0)
        .env("ALERT_SMTP_PASSWORD_FILE", folder.0.join("smtp_password"))
        .env("ALERT_CHAT_URL_FILE", folder.0.join("chat_url"))
        .envs(settings.iter().copied())
        .stdin(Stdio::null());
    command
}

fn check(folder: &Folder, settings: &[(&str, &str)]) -> Output {
    start(&root().join("alertmanager"), folder, settings).arg("--check").output().unwrap()
}

#[test]
fn alertmanager_accepts_every_combination_of_settings() {
    for bits in 0..32 {
        let folder = Folder::new();
        let is_set = |bit: u32| bits & (1 << bit) != 0;
        let mut settings = SERVER.to_vec();
        settings.extend(is_set(0).then_some(PAGE_MAIL));
        settings.extend(is_set(1).then_some(TICKET_MAIL));
        settings.extend(is_set(2).then_some(("ALERT_SMTP_USER", "alerts")));
        settings.extend(is_set(3).then_some(("ALERT_SMTP_TLS", "off")));
        let url = "https://chat.example.com/hooks/abc";
        std::fs::write(folder.0.join("smtp_password"), PASSWORD).unwrap();
        std::fs::write(folder.0.join("chat_url"), if is_set(4) { url } else { "\n" }).unwrap();

        let checked = check(&folder, &settings);

        let errors = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(checked.status.success(), "{settings:?}: {errors}");
        let file = folder.0.join("alertmanager.yml");
        let rendered = std::fs::read_to_string(&file).unwrap();
        let has_mail = is_set(0) || is_set(1);
        for (part, is_expected) in [
            ("\n    email_configs:\n", has_mail),
            ("to: 'Ada O''Neil <oncall@example.com>, b@example.com'\n", is_set(0)),
            ("to: 'team@example.com'\n", is_set(1)),
            ("smtp_auth_password_file: ", has_mail && is_set(2)),
            ("smtp_require_tls: false\n", has_mail && is_set(3)),
            ("\n    slack_configs:\n", is_set(4)),
            ("\n    slack_configs: [*chat]\n", is_set(4)),
        ] {
            assert_eq!(rendered.contains(part), is_expected, "{settings:?}: {part}");
        }
        let is_open = rendered.contains(PASSWORD) || rendered.contains(url);
        assert!(!is_open, "the configuration contains a secret");
        let route = format!("--config.file={}", file.display());
        for (severity, receiver) in [("page", "pager"), ("ticket", "tickets")] {
            let severity = format!("severity={severity}");
            let found =
                run("amtool", &["config", "routes", "test", &route, "alertname=A", &severity]);
            assert_eq!(found.unwrap().lines().next(), Some(receiver));
        }
    }
}

#[test]
fn an_incomplete_setting_is_refused() {
    let folder = Folder::new();
    for (settings, expected) in [
        (vec![PAGE_MAIL], "start: ALERT_SMTP is not set: mail needs a server\n"),
        (vec![TICKET_MAIL, SERVER[0]], "start: ALERT_MAIL_FROM is not set: mail needs a sender\n"),
        (
            [&[PAGE_MAIL, ("ALERT_SMTP_USER", "alerts")], &SERVER[..]].concat(),
            "/smtp_password is missing or empty\n",
        ),
    ] {
        let checked = check(&folder, &settings);
        let errors = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert!(!checked.status.success() && errors.ends_with(expected), "{settings:?}: {errors}");
    }
}

/// A process that is killed when the test ends, even if it fails.
struct Process(Child);

impl Process {
    fn spawn(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

type Messages = Arc<Mutex<Vec<Value>>>;

/// Starts a receiver of chat messages; returns the URL of its webhook.
async fn start_chat(messages: Messages) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let receive = async |State(messages): State<Messages>, Json(message): Json<Value>| {
        messages.lock().unwrap().push(message);
        "ok"
    };
    let router = Router::new().route("/hooks/abc", post(receive)).with_state(messages);
    tokio::spawn(async move { axum::serve(socket, router).await });
    format!("http://{address}/hooks/abc")
}

/// Starts Prometheus with the rules, at sixty times their speed, and no process to scrape: `TargetMissing` fires.
fn start_prometheus(folder: &Folder, alertmanager: &str) -> Process {
    let scale = TimeScale { factor: 60.0, seconds_min: 4.0 };
    std::fs::write(folder.0.join("alerts.yml"), rules::alerts(scale)).unwrap();
    let configuration = format!(
        "global: {{ evaluation_interval: 1s }}\nrule_files: [alerts.yml]\nalerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['{alertmanager}'] }}] }}] }}\n"
    );
    std::fs::write(folder.0.join("prometheus.yml"), configuration).unwrap();
    Process::spawn(Command::new(tool("prometheus")).current_dir(&folder.0).args([
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=tsdb",
        // The alert may fire before Prometheus has found Alertmanager.
        "--rules.alert.resend-delay=2s",
        "--web.external-url=https://wallet.example.com/prometheus/",
        &format!("--web.listen-address={}", free_address()),
    ]))
}

/// Starts Alertmanager as the compose file does, without the waits for further alerts of a group.
fn start_alertmanager(folder: &Folder, settings: &[(&str, &str)], address: &str) -> Process {
    let scripts = folder.0.join("scripts");
    std::fs::create_dir_all(&scripts).unwrap();
    for file in ["alertmanager.yml", "notifications.tmpl", "start"] {
        let text = std::fs::read_to_string(root().join("alertmanager").join(file)).unwrap();
        let text = text.replace("group_wait: 10s", "group_wait: 0s");
        std::fs::write(scripts.join(file), text).unwrap();
    }
    Process::spawn(start(&scripts, folder, settings).args([
        &format!("--storage.path={}", folder.0.join("alerts").display()),
        "--cluster.listen-address=",
        &format!("--web.listen-address={address}"),
    ]))
}

/// Message without the line breaks and escapes of its transfer encoding.
fn decoded(message: &str) -> String {
    message.replace("=\r\n", "").replace("=\n", "").replace("=3D", "=")
}

#[tokio::test]
async fn a_page_arrives_by_mail_and_in_the_chat_with_its_runbook() {
    let folder = Folder::new();
    let (mail, messages) = (MailServer::reserve(), Messages::default());
    let _mail = mail.start().await;
    let url = start_chat(Arc::clone(&messages)).await;
    std::fs::write(folder.0.join("chat_url"), format!("{url}\n")).unwrap();
    let (address, server) = (free_address().to_string(), mail.address().to_string());
    let settings = [
        PAGE_MAIL,
        TICKET_MAIL,
        ("ALERT_SMTP", &server),
        ("ALERT_SMTP_TLS", "off"),
        ("ALERT_MAIL_FROM", "alerts@example.com"),
    ];
    let _alertmanager = start_alertmanager(&folder, &settings, &address);
    let alertmanager = Client::new(address.parse().unwrap());
    let ready = async || alertmanager.try_status("/-/ready").await == Some(200);
    eventually_within(Duration::from_secs(30), "Alertmanager is ready", ready).await;
    let _prometheus = start_prometheus(&folder, &address);

    let link = "https://wallet.example.com/runbooks/TargetMissing";
    let mail_about = |subject: &str, to: &str| {
        let messages = mail.messages();
        let found = messages.iter().find(|message| {
            message.contains(&format!("Subject: {subject}")) && message.contains(to)
        });
        found.map(|message| decoded(message))
    };
    let page = async || mail_about("[FIRING, page] TargetMissing", "oncall@example.com").is_some();
    eventually_within(Duration::from_mins(1), "the page arrives by mail", page).await;
    let page = mail_about("[FIRING, page] TargetMissing", "oncall@example.com").unwrap();
    assert!(page.contains(&format!("Runbook:   {link}\n")), "{page}");
    assert!(page.contains(&format!("<a href=\"{link}\">Runbook</a>")), "{page}");
    assert!(page.contains("https://wallet.example.com/grafana/d/revwallet-overview"), "{page}");
    let in_chat = |title: &str| {
        let messages = messages.lock().unwrap();
        let mut attachments = messages.iter().map(|message| message["attachments"][0].clone());
        attachments.find(|attachment| attachment["title"] == title)
    };
    let arrived = async || in_chat("[FIRING, page] TargetMissing").is_some();
    eventually_within(Duration::from_secs(30), "the page arrives in the chat", arrived).await;
    let message = in_chat("[FIRING, page] TargetMissing").unwrap();
    assert_eq!((&message["title_link"], &message["color"]), (&link.into(), &"danger".into()));
    assert!(message["text"].as_str().unwrap().contains(&format!("<{link}|Runbook>")), "{message}");

    let target = format!("--alertmanager.url=http://{address}");
    run("amtool", &["alert", "add", &target, "DeadLetters", "severity=ticket"]).unwrap();
    let ticket = async || {
        mail_about("[FIRING, ticket] DeadLetters", "team@example.com").is_some()
            && in_chat("[FIRING, ticket] DeadLetters").is_some()
    };
    eventually_within(Duration::from_secs(30), "the ticket arrives in both", ticket).await;
    assert!(mail_about("[FIRING, ticket] DeadLetters", "oncall@example.com").is_none());
}
