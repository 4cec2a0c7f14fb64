//! Refusals of the backup and restore scripts: one sentence, and no partial result.

use std::fs;
use std::path::Path;

use super::{Site, deposit, now, script, wallet};

/// Returns the last line of the output, which is the error message.
fn error_message(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

/// Returns the entries of a folder whose name contains a text, sorted.
fn files(folder: &Path, part: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| path.file_name().unwrap().to_string_lossy().contains(part)).collect();
    found.sort();
    found
}

/// Inverts one byte in the middle of a file.
fn corrupt(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

/// Returns the largest file of the tables in a backup.
fn largest_table_file(backup: &Path) -> std::path::PathBuf {
    let folders = fs::read_dir(backup.join("cluster/base")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    files
        .map(|file| file.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap()
}

#[tokio::test]
async fn an_impossible_restore_is_refused() {
    let site = Site::new();
    let too_early = now();
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    let backup = files(&site.backups(), "Z").remove(0);
    for key in ["a", "b"] {
        deposit(&program.public, &id, key).await;
        // Each backup starts a new WAL segment.
        site.backup(&[]).await;
    }
    assert!(program.stop().await.success());
    let assert_refused = |more: &[&str], reason: &str| {
        let (into, output) = site.restore("new", more);
        assert!(
            !output.succeeded && error_message(&output.text).contains(reason),
            "{reason}: {}",
            output.text
        );
        assert!(!into.join("postgres").exists() && !into.join("unfinished").exists(), "{reason}");
    };

    assert_refused(&[&format!("--until={too_early}")], "no backup in");
    let from = format!("--from={}", backup.display());
    assert_refused(&[&from, &format!("--until={too_early}")], "use an earlier backup");
    assert_refused(&["--until=2999-01-01T00:00:00Z"], "the archive ends at 20");
    assert_refused(&["--until=yesterday"], "a time in UTC");
    assert_refused(&["--from=/nowhere"], "folder /nowhere does not exist");
    assert_refused(&["--program=/nowhere"], "/nowhere is not an executable file");
    let data = format!("--into={}", site.data().display());
    let (_, output) = site.restore("new", &[&data]);
    assert!(
        !output.succeeded && output.text.contains("postgres already exists"),
        "{}",
        output.text
    );
    // A missing segment would end the book early; a damaged one would change it.
    let segments = files(&site.backups().join("wal"), "0");
    let segments: Vec<_> =
        segments.iter().filter(|path| path.file_stem().unwrap().len() == 24).collect();
    let segment = segments[segments.len() - 2];
    let content = fs::read(segment).unwrap();
    fs::remove_file(segment).unwrap();
    assert_refused(&[&from], "the archive lacks the segment");
    fs::write(segment, &content[..content.len() / 2]).unwrap();
    assert_refused(&[&from], "could not restore file");
    fs::write(segment, content).unwrap();
    corrupt(&largest_table_file(&backup));
    assert_refused(&[&from], "the backup is damaged");
}

#[tokio::test]
async fn a_backup_that_does_not_match_its_anchor_is_refused() {
    let site = Site::new();
    let program = site.start(&site.data()).await;
    wallet(&program.public).await;
    site.backup(&[]).await;
    assert!(program.stop().await.success());
    let backup = files(&site.backups(), "Z").remove(0);
    let manifest = backup.join("backup.conf");
    let text = fs::read_to_string(&manifest).unwrap();
    let anchor = text.lines().find_map(|line| line.strip_prefix("anchor=")).unwrap();
    let other_hash = anchor.chars().rev().filter(|c| *c != ':').take(64).collect::<String>();
    fs::write(&manifest, text.replace(anchor, &format!("1:{other_hash}"))).unwrap();

    let (into, output) = site.restore("new", &[]);

    assert!(
        !output.succeeded && output.text.contains("differs from the anchor's"),
        "{}",
        output.text
    );
    assert!(error_message(&output.text).contains("not-sound"), "{}", output.text);
    assert!(!into.join("postgres").exists());
}

#[tokio::test]
async fn an_impossible_backup_is_refused_in_one_sentence() {
    let site = Site::new();
    let output = site.script("backup", &site.data(), &[]);
    assert!(
        !output.succeeded && output.text.contains("no database is running in"),
        "{}",
        output.text
    );
    assert_eq!(output.text.lines().count(), 1, "{}", output.text);
    for (arguments, reason) in [
        (["--keep=0", "--into=/tmp"], "at least 1"),
        (["--nonsense", "x"], "unknown option --nonsense"),
        (["--data-dir", "x"], "--into FOLDER is required"),
    ] {
        let output = script("backup", &arguments);
        assert!(!output.succeeded && output.text.contains(reason), "{reason}: {}", output.text);
    }
    assert!(!site.backups().exists());
}

#[tokio::test]
async fn retention_deletes_old_backups_and_the_rest_can_be_restored() {
    let site = Site::new();
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    deposit(&program.public, &id, "a").await;
    let first = files(&site.backups(), "Z").remove(0);

    let output = site.backup(&["--keep=1"]).await;

    assert!(output.text.contains(&format!("Deleting {}", first.display())), "{}", output.text);
    assert_eq!(files(&site.backups(), "Z").len(), 1);
    deposit(&program.public, &id, "b").await;
    assert!(program.stop().await.success());
    let segments = files(&site.backups().join("wal"), "0");
    let label = files(&site.backups(), "Z").remove(0).join("cluster/backup_label");
    let label = fs::read_to_string(label).unwrap();
    let required = label.split("(file ").nth(1).unwrap().split(')').next().unwrap();
    let oldest = segments[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(
        oldest.starts_with(required),
        "the oldest segment is {oldest}, the first required one is {required}"
    );
    let (_, output) = site.restore("new", &[]);
    assert!(output.succeeded && output.text.contains("3 transfers in"), "{}", output.text);
}

#[test]
fn the_archive_never_overwrites_a_segment() {
    let folder = crate::harness::program::Folder::new();
    let (from, to) = (folder.0.join("segment"), folder.0.join("archived"));
    let archive =
        || script("lib/archive-wal", &[&from.display().to_string(), &to.display().to_string()]);
    fs::write(&from, "one").unwrap();
    assert!(archive().succeeded);
    let archived = fs::read(folder.0.join("archived.gz")).unwrap();
    assert!(archive().succeeded, "the same segment may be archived again");

    fs::write(&from, "two").unwrap();
    let output = archive();

    assert!(
        !output.succeeded && output.text.contains("already exists with different content"),
        "{}",
        output.text
    );
    assert_eq!(fs::read(folder.0.join("archived.gz")).unwrap(), archived);
    assert_eq!(files(&folder.0, ".part").len(), 0);
}
