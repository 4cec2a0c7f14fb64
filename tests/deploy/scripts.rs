//! The scripts for Kubernetes, with programs that only note what they are asked where a cluster would be; and the load
//! that updates are tried under, against the real program.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{root, tools};

/// What the scripts may lean on besides what they ask for.
const USUAL: [&str; 20] = [
    "awk", "bash", "basename", "cat", "cp", "date", "dirname", "env", "git", "grep", "head", "ls",
    "mkdir", "mktemp", "rm", "sed", "sleep", "sort", "tail", "wc",
];

/// A place of its own for a test, taken away with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = Path::new("/tmp").join(format!("revwallet-{name}-{}", std::process::id()));
        fs::create_dir_all(place.join("bin")).unwrap();
        Self(place)
    }

    fn program(&self, name: &str, lines: &str) {
        let path = self.0.join("bin").join(name);
        let place = self.0.display();
        fs::write(&path, format!("#!/bin/bash\necho \"{name} $*\" >>{place}/asked\n{lines}\n"))
            .unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Usual programs, and instead of a cluster some that note what they are asked.
    fn with_programs(name: &str) -> Self {
        let place = Self::new(name);
        for usual in USUAL {
            let found =
                ["/usr/bin", "/bin", "/usr/local/bin"].map(|folder| Path::new(folder).join(usual));
            let found = found.iter().find(|path| path.exists()).unwrap();
            symlink(found, place.0.join("bin").join(usual)).unwrap();
        }
        let here = place.0.display().to_string();
        place.program("docker", "case \"$1 $2\" in 'image inspect') echo 0123456789ab ;; 'port '*) echo 127.0.0.1:8081 ;; esac");
        place.program(
            "kind",
            &format!("case \"$1 $2\" in 'get clusters') cat {here}/clusters 2>/dev/null ;; 'create cluster') cat >{here}/cluster && echo mine >{here}/clusters ;; esac; true"),
        );
        let kubectl = tools("kubectl_tool");
        place.program(
            "kubectl",
            &format!(
                "case \"$*\" in kustomize*) exec '{kubectl}' \"$@\" ;; *apply*) cp \"${{@: -1}}\" {here}/applied && echo one ;; *jsonpath*) echo 3 ;; esac"
            ),
        );
        place
    }

    fn run(&self, script: &str, words: &[&str]) -> Output {
        Command::new(root().join(script))
            .args(words)
            .current_dir(root())
            .env("PATH", self.0.join("bin"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn asked(&self) -> String {
        fs::read_to_string(self.0.join("asked")).unwrap_or_default()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whatever is left there is below /tmp.
        fs::remove_dir_all(&self.0).ok();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_sentence_says_what_is_missing() {
    for missing in ["docker", "kind", "kubectl"] {
        let place = Place::with_programs(&format!("missing-{missing}"));
        fs::remove_file(place.0.join("bin").join(missing)).unwrap();

        let output = place.run("scripts/kind-up", &[]);

        assert!(!output.status.success());
        assert!(
            said(&output).starts_with(&format!("kind-up: {missing} is missing")),
            "{}",
            said(&output)
        );
        assert_eq!(said(&output).lines().count(), 1);
    }
    let place = Place::with_programs("wrong");
    let output = place.run("scripts/kind-up", &["--ports", "1"]);
    assert!(
        said(&output).starts_with("kind-up: unknown option --ports; usage: "),
        "{}",
        said(&output)
    );
    assert!(place.asked().is_empty());
}

#[test]
fn a_cluster_is_made_once_and_brought_what_has_changed() {
    let place = Place::with_programs("up");
    let words = ["--port", "8081", "--cluster", "mine", "--namespace", "other"];

    let first = place.run("scripts/kind-up", &words);

    assert!(first.status.success(), "{}", said(&first));
    let cluster = fs::read_to_string(place.0.join("cluster")).unwrap();
    assert!(
        cluster.contains("hostPort: 8081\n") && !cluster.contains("hostPort: 80\n"),
        "{cluster}"
    );
    let applied = fs::read_to_string(place.0.join("applied")).unwrap();
    let namespaces: Vec<_> =
        applied.lines().filter(|line| line.starts_with("  namespace: ")).collect();
    assert!(namespaces.len() > 30 && namespaces.iter().all(|line| *line == "  namespace: other"));
    assert_eq!(applied.matches("image: revwallet:0123456789ab\n").count(), 3);
    let asked = place.asked();
    let at = |what: &str| asked.find(what).unwrap_or_else(|| panic!("never asked {what}: {asked}"));
    assert!(
        at("kind load docker-image --name mine revwallet:0123456789ab") < at("apply --server-side")
    );
    // A Job cannot be changed.
    assert!(
        at("--context kind-mine --namespace other delete job revwallet-migrate")
            < at("apply --server-side")
    );
    assert!(at("apply --server-side") < at("rollout status deployment/revwallet-api"));
    let printed = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(printed.contains("http://revwallet.com:8081/grafana/"), "{printed}");
    let left = fs::read_dir(root().join("kind/overlays")).unwrap();
    assert!(
        left.into_iter().all(|entry| !entry
            .unwrap()
            .file_name()
            .display()
            .to_string()
            .starts_with('.'))
    );

    let second = place.run("scripts/kind-up", &words);

    assert!(second.status.success(), "{}", said(&second));
    assert_eq!(place.asked().matches("kind create cluster").count(), 1, "it was there already");

    let down = place
        .run("scripts/kind-down", &["--keep-cluster", "--cluster", "mine", "--namespace", "other"]);
    assert!(
        down.status.success() && place.asked().contains("delete namespace other"),
        "{}",
        said(&down)
    );
    assert!(!place.asked().contains("kind delete cluster"));
    let down = place.run("scripts/kind-down", &["--cluster", "mine"]);
    assert!(down.status.success() && place.asked().contains("kind delete cluster --name mine"));
}

#[test]
fn what_is_pinned_is_what_was_signed() {
    let place = Place::with_programs("pin");
    // A copy of the tree, as the script writes into it.
    let tree = place.0.join("tree");
    fs::create_dir_all(&tree).unwrap();
    for folder in [
        "kind",
        "scripts",
        "nginx",
        "prometheus",
        "alertmanager",
        "grafana",
        "loki",
        "tempo",
        "alloy",
    ] {
        let copied = Command::new("cp").arg("-r").arg(root().join(folder)).arg(&tree).status();
        assert!(copied.unwrap().success());
    }
    let digest = "ab".repeat(32);
    place.program("docker", &format!("echo sha256:{digest}"));
    let pin = |image: &str| {
        let mut command = Command::new(tree.join("scripts/pin-images"));
        command.arg(image).env("PATH", place.0.join("bin")).stdin(Stdio::null()).output().unwrap()
    };

    place.program("cosign", "exit 1");
    let refused = pin("ghcr.io/somebody/revwallet:1.2.3");
    assert!(said(&refused).contains("was not signed"), "{}", said(&refused));
    let overlay = "kind/overlays/production/kustomization.yaml";
    assert_eq!(fs::read_to_string(tree.join(overlay)).unwrap(), crate::read(overlay));

    place.program("cosign", "true");
    for _ in 0..2 {
        let output = pin("ghcr.io/somebody/revwallet:1.2.3");
        assert!(output.status.success(), "{}", said(&output));
    }

    let written = fs::read_to_string(tree.join(overlay)).unwrap();
    assert_eq!(written.matches(&format!("digest: sha256:{digest}\n")).count(), 10, "{written}");
    assert!(
        place
            .asked()
            .contains(&format!("cosign verify ghcr.io/somebody/revwallet@sha256:{digest} "))
    );
    assert!(pin("docker.io/somebody/revwallet:1").stderr.starts_with(b"pin-images: usage"));
}

/// The program with a database of its own, and where it listens.
struct Program {
    child: Child,
    address: String,
    /// Taken away with it.
    _place: Place,
}

impl Program {
    fn start() -> Self {
        let place = Place::new("load");
        fs::set_permissions(&place.0, fs::Permissions::from_mode(0o755)).unwrap();
        let log = place.0.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_revwallet"))
            .args(["--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0", "--log-format=json"])
            .arg(format!("--data-dir={}", place.0.join("data").display()))
            .env_remove("DATABASE_URL")
            .stdout(fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut program = Self { child, address: String::new(), _place: place };
        let end = Instant::now() + Duration::from_mins(2);
        while program.address.is_empty() {
            assert!(Instant::now() < end, "{}", fs::read_to_string(&log).unwrap());
            std::thread::sleep(Duration::from_millis(100));
            let lines = fs::read_to_string(&log).unwrap();
            let listening = lines.lines().find(|line| line.contains("serve.listening"));
            let line: serde_json::Value = serde_json::from_str(listening.unwrap_or("{}")).unwrap();
            line["address"].as_str().unwrap_or_default().clone_into(&mut program.address);
        }
        program
    }

    /// In good order, so that its database ends with it.
    fn end(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().ok();
            self.child.wait().ok();
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn load(&self, seconds: &str) -> Command {
        let mut command = Command::new(root().join("scripts/lib/load"));
        command.args([&self.url(), seconds]);
        command
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end();
    }
}

#[test]
fn the_load_tells_whether_a_request_was_lost() {
    let mut program = Program::start();

    let output = program.load("1").output().unwrap();

    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", said(&output));
    assert!(printed.contains(", 0 failed; the balance is "), "{printed}");

    // It is no whole system: nothing asks for a password there.
    let smoke = Command::new(root().join("scripts/smoke")).arg(program.url()).output().unwrap();
    let fault = "smoke: /grafana/ answers 404 without a password, expected 401\n";
    assert!(!smoke.status.success() && said(&smoke) == fault, "{}", said(&smoke));

    // The same, with a program that ends on the way.
    let load = program.load("60").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    program.end();
    std::thread::sleep(Duration::from_millis(500));
    Command::new("kill").args(["-TERM", &load.id().to_string()]).status().unwrap();
    let output = load.wait_with_output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
