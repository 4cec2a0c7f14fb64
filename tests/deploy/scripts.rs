//! The Kubernetes scripts with stubs of `docker`, `kind` and `kubectl`, and the load generator against the real program.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::{root, tools};

/// Programs that the scripts may use without checking that they exist.
const BASIC_PROGRAMS: [&str; 20] = [
    "awk", "bash", "basename", "cat", "cp", "date", "dirname", "env", "git", "grep", "head", "ls",
    "mkdir", "mktemp", "rm", "sed", "sleep", "sort", "tail", "wc",
];

/// A folder with a `PATH` of its own, which is removed at the end of the test.
struct Sandbox(PathBuf);

impl Sandbox {
    fn new(name: &str) -> Self {
        let folder = Path::new("/tmp").join(format!("revwallet-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("bin")).unwrap();
        Self(folder)
    }

    /// Writes a stub that records its arguments and then runs the given lines.
    fn stub(&self, name: &str, lines: &str) {
        let path = self.0.join("bin").join(name);
        let folder = self.0.display();
        fs::write(&path, format!("#!/bin/bash\necho \"{name} $*\" >>{folder}/calls\n{lines}\n"))
            .unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Creates a sandbox with basic programs and with stubs for a cluster.
    fn with_stubs(name: &str) -> Self {
        let sandbox = Self::new(name);
        for program in BASIC_PROGRAMS {
            let found = ["/usr/bin", "/bin", "/usr/local/bin"]
                .map(|folder| Path::new(folder).join(program));
            let found = found.iter().find(|path| path.exists()).unwrap();
            symlink(found, sandbox.0.join("bin").join(program)).unwrap();
        }
        let folder = sandbox.0.display().to_string();
        sandbox.stub("docker", "case \"$1 $2\" in 'image inspect') echo 0123456789ab ;; 'port '*) echo 127.0.0.1:8081 ;; esac");
        sandbox.stub(
            "kind",
            &format!("case \"$1 $2\" in 'get clusters') cat {folder}/clusters 2>/dev/null ;; 'create cluster') cat >{folder}/cluster && echo mine >{folder}/clusters ;; esac; true"),
        );
        let kubectl = tools("kubectl_tool");
        sandbox.stub(
            "kubectl",
            &format!(
                "case \"$*\" in kustomize*) exec '{kubectl}' \"$@\" ;; *apply*) cp \"${{@: -1}}\" {folder}/applied && echo one ;; *jsonpath*) echo 3 ;; esac"
            ),
        );
        sandbox
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        Command::new(root().join(script))
            .args(arguments)
            .current_dir(root())
            .env("PATH", self.0.join("bin"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Returns the recorded calls of the stubs.
    fn calls(&self) -> String {
        fs::read_to_string(self.0.join("calls")).unwrap_or_default()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // An error only leaves files below /tmp.
        fs::remove_dir_all(&self.0).ok();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_missing_program_is_reported_in_one_sentence() {
    for missing in ["docker", "kind", "kubectl"] {
        let sandbox = Sandbox::with_stubs(&format!("missing-{missing}"));
        fs::remove_file(sandbox.0.join("bin").join(missing)).unwrap();

        let output = sandbox.run("scripts/kind-up", &[]);

        assert!(!output.status.success());
        assert!(
            stderr(&output).starts_with(&format!("kind-up: {missing} is missing")),
            "{}",
            stderr(&output)
        );
        assert_eq!(stderr(&output).lines().count(), 1);
    }
    let sandbox = Sandbox::with_stubs("wrong");
    let output = sandbox.run("scripts/kind-up", &["--ports", "1"]);
    assert!(
        stderr(&output).starts_with("kind-up: unknown option --ports; usage: "),
        "{}",
        stderr(&output)
    );
    assert!(sandbox.calls().is_empty());
}

#[test]
fn kind_up_creates_a_cluster_once_and_applies_changes() {
    let sandbox = Sandbox::with_stubs("up");
    let arguments = ["--port", "8081", "--cluster", "mine", "--namespace", "other"];

    let first = sandbox.run("scripts/kind-up", &arguments);

    assert!(first.status.success(), "{}", stderr(&first));
    let cluster = fs::read_to_string(sandbox.0.join("cluster")).unwrap();
    assert!(
        cluster.contains("hostPort: 8081\n") && !cluster.contains("hostPort: 80\n"),
        "{cluster}"
    );
    let applied = fs::read_to_string(sandbox.0.join("applied")).unwrap();
    let namespaces: Vec<_> =
        applied.lines().filter(|line| line.starts_with("  namespace: ")).collect();
    assert!(namespaces.len() > 30 && namespaces.iter().all(|line| *line == "  namespace: other"));
    assert_eq!(applied.matches("image: revwallet:0123456789ab\n").count(), 3);
    let calls = sandbox.calls();
    let position =
        |call: &str| calls.find(call).unwrap_or_else(|| panic!("no call {call}: {calls}"));
    assert!(
        position("kind load docker-image --name mine revwallet:0123456789ab")
            < position("apply --server-side")
    );
    // A Job is immutable, so it is deleted first.
    assert!(
        position("--context kind-mine --namespace other delete job revwallet-migrate")
            < position("apply --server-side")
    );
    assert!(position("apply --server-side") < position("rollout status deployment/revwallet-api"));
    let printed = String::from_utf8_lossy(&first.stdout).into_owned();
    assert!(printed.contains("http://revwallet.com:8081/grafana/"), "{printed}");
    let overlays = fs::read_dir(root().join("kind/overlays")).unwrap();
    assert!(
        overlays.into_iter().all(|entry| !entry
            .unwrap()
            .file_name()
            .display()
            .to_string()
            .starts_with('.'))
    );

    let second = sandbox.run("scripts/kind-up", &arguments);

    assert!(second.status.success(), "{}", stderr(&second));
    assert_eq!(
        sandbox.calls().matches("kind create cluster").count(),
        1,
        "the cluster was created twice"
    );

    let down = sandbox
        .run("scripts/kind-down", &["--keep-cluster", "--cluster", "mine", "--namespace", "other"]);
    assert!(
        down.status.success() && sandbox.calls().contains("delete namespace other"),
        "{}",
        stderr(&down)
    );
    assert!(!sandbox.calls().contains("kind delete cluster"));
    let down = sandbox.run("scripts/kind-down", &["--cluster", "mine"]);
    assert!(down.status.success() && sandbox.calls().contains("kind delete cluster --name mine"));
}

#[test]
fn only_signed_images_are_pinned() {
    let sandbox = Sandbox::with_stubs("pin");
    // The script writes into the tree, so it runs in a copy.
    let tree = sandbox.0.join("tree");
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
    sandbox.stub("docker", &format!("echo sha256:{digest}"));
    let pin = |image: &str| {
        let mut command = Command::new(tree.join("scripts/pin-images"));
        command.arg(image).env("PATH", sandbox.0.join("bin")).stdin(Stdio::null()).output().unwrap()
    };

    sandbox.stub("cosign", "exit 1");
    let refused = pin("ghcr.io/example/revwallet:1.2.3");
    assert!(stderr(&refused).contains("was not signed"), "{}", stderr(&refused));
    let overlay = "kind/overlays/production/kustomization.yaml";
    assert_eq!(fs::read_to_string(tree.join(overlay)).unwrap(), crate::read(overlay));

    sandbox.stub("cosign", "true");
    for _ in 0..2 {
        let output = pin("ghcr.io/example/revwallet:1.2.3");
        assert!(output.status.success(), "{}", stderr(&output));
    }

    let written = fs::read_to_string(tree.join(overlay)).unwrap();
    assert_eq!(written.matches(&format!("digest: sha256:{digest}\n")).count(), 10, "{written}");
    assert!(
        sandbox
            .calls()
            .contains(&format!("cosign verify ghcr.io/example/revwallet@sha256:{digest} "))
    );
    assert!(pin("docker.io/example/revwallet:1").stderr.starts_with(b"pin-images: usage"));
}

/// The program with an embedded database.
struct Program {
    child: Child,
    address: String,
    /// Removed after the program has stopped.
    _sandbox: Sandbox,
}

impl Program {
    fn start() -> Self {
        let sandbox = Sandbox::new("load");
        fs::set_permissions(&sandbox.0, fs::Permissions::from_mode(0o755)).unwrap();
        let log = sandbox.0.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_revwallet"))
            .args(["--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0", "--log-format=json"])
            .arg(format!("--data-dir={}", sandbox.0.join("data").display()))
            .env_remove("DATABASE_URL")
            .stdout(fs::File::create(&log).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut program = Self { child, address: String::new(), _sandbox: sandbox };
        let deadline = Instant::now() + Duration::from_mins(2);
        while program.address.is_empty() {
            assert!(Instant::now() < deadline, "{}", fs::read_to_string(&log).unwrap());
            std::thread::sleep(Duration::from_millis(100));
            let lines = fs::read_to_string(&log).unwrap();
            let listening = lines.lines().find(|line| line.contains("serve.listening"));
            let line: serde_json::Value = serde_json::from_str(listening.unwrap_or("{}")).unwrap();
            line["address"].as_str().unwrap_or_default().clone_into(&mut program.address);
        }
        program
    }

    /// Stops the program gracefully, so that its database stops too.
    fn stop(&mut self) {
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
        self.stop();
    }
}

#[test]
fn the_load_generator_detects_a_failed_request() {
    let mut program = Program::start();

    let output = program.load("1").output().unwrap();

    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", stderr(&output));
    assert!(printed.contains(", 0 failed; the balance is "), "{printed}");

    // scripts/smoke detects that the edge and its password are missing.
    let smoke = Command::new(root().join("scripts/smoke")).arg(program.url()).output().unwrap();
    let error = "smoke: /grafana/ answers 404 without a password, expected 401\n";
    assert!(!smoke.status.success() && stderr(&smoke) == error, "{}", stderr(&smoke));

    // The load generator fails if the program stops meanwhile.
    let load = program.load("60").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    program.stop();
    std::thread::sleep(Duration::from_millis(500));
    Command::new("kill").args(["-TERM", &load.id().to_string()]).status().unwrap();
    let output = load.wait_with_output().unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
