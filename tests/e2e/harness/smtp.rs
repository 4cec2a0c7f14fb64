//! A real mail server, which keeps what it receives in a folder: `aiosmtpd`, from Debian's `python3-aiosmtpd`.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use super::program::Folder;
use super::{eventually, free_address};

/// The address and the mailbox of a mail server, which outlive its process.
pub struct MailServer {
    address: SocketAddr,
    folder: Folder,
}

/// The process of a mail server, killed on drop.
pub struct MailProcess(Child);

impl MailServer {
    pub fn reserve() -> Self {
        Self { address: free_address(), folder: Folder::new() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn start(&self) -> MailProcess {
        let mailbox = self.folder.0.join("mail");
        let process = Command::new("/usr/bin/python3")
            .args(["-m", "aiosmtpd", "-n", "-l", &self.address.to_string()])
            .args(["-c", "aiosmtpd.handlers.Mailbox"])
            .arg(&mailbox)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        eventually("the mail server listens", async || {
            tokio::net::TcpStream::connect(self.address).await.is_ok()
        })
        .await;
        MailProcess(process)
    }

    /// The messages that arrived, with their headers.
    pub fn messages(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.folder.0.join("mail/new")) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.map(|path| std::fs::read_to_string(path).unwrap()).collect()
    }
}

impl Drop for MailProcess {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
