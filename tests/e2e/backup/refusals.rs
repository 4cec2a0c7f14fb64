//! What cannot be right is refused in one sentence, and nothing is left half done.

use std::fs;
use std::path::Path;

use super::{Site, deposit, now, script, wallet};

/// The last line, which is the sentence.
fn sentence(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

fn files(folder: &Path, part: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        entries.filter(|path| path.file_name().unwrap().to_string_lossy().contains(part)).collect();
    found.sort();
    found
}

/// Changes one byte in the middle.
fn harm(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

/// The largest file of the database itself.
fn table_of(backup: &Path) -> std::path::PathBuf {
    let folders = fs::read_dir(backup.join("cluster/base")).unwrap();
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    files
        .map(|file| file.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap()
}

#[tokio::test]
async fn a_restore_that_cannot_be_right_is_refused() {
    let site = Site::new();
    let early = now();
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    let backup = files(&site.backups(), "Z").remove(0);
    for key in ["a", "b"] {
        deposit(&program.public, &id, key).await;
        // It begins another file of the log.
        site.backup(&[]).await;
    }
    assert!(program.stop().await.success());
    let refused = |more: &[&str], why: &str| {
        let (into, said) = site.restore("new", more);
        assert!(!said.succeeded && sentence(&said.text).contains(why), "{why}: {}", said.text);
        assert!(!into.join("postgres").exists() && !into.join("unfinished").exists(), "{why}");
    };

    refused(&[&format!("--until={early}")], "no backup in");
    let from = format!("--from={}", backup.display());
    refused(&[&from, &format!("--until={early}")], "use an earlier backup");
    refused(&["--until=2999-01-01T00:00:00Z"], "the archive ends at 20");
    refused(&["--until=yesterday"], "a time in UTC");
    refused(&["--from=/nowhere"], "folder /nowhere does not exist");
    refused(&["--program=/nowhere"], "/nowhere is not an executable file");
    let data = format!("--into={}", site.data().display());
    let (_, said) = site.restore("new", &[&data]);
    assert!(!said.succeeded && said.text.contains("postgres already exists"), "{}", said.text);
    // An archive with a hole would end the book early, and one that is damaged is not what was written.
    let segments = files(&site.backups().join("wal"), "0");
    let segments: Vec<_> =
        segments.iter().filter(|path| path.file_stem().unwrap().len() == 24).collect();
    let segment = segments[segments.len() - 2];
    let whole = fs::read(segment).unwrap();
    fs::remove_file(segment).unwrap();
    refused(&[&from], "the archive lacks the segment");
    fs::write(segment, &whole[..whole.len() / 2]).unwrap();
    refused(&[&from], "could not restore file");
    fs::write(segment, whole).unwrap();
    harm(&table_of(&backup));
    refused(&[&from], "the backup is damaged");
}

#[tokio::test]
async fn a_book_that_was_rewritten_in_its_backup_is_not_taken() {
    let site = Site::new();
    let program = site.start(&site.data()).await;
    wallet(&program.public).await;
    site.backup(&[]).await;
    assert!(program.stop().await.success());
    let backup = files(&site.backups(), "Z").remove(0);
    let notes = backup.join("backup.conf");
    let text = fs::read_to_string(&notes).unwrap();
    let anchor = text.lines().find_map(|line| line.strip_prefix("anchor=")).unwrap();
    let other = anchor.chars().rev().filter(|c| *c != ':').take(64).collect::<String>();
    fs::write(&notes, text.replace(anchor, &format!("1:{other}"))).unwrap();

    let (into, said) = site.restore("new", &[]);

    assert!(!said.succeeded && said.text.contains("not the anchor's"), "{}", said.text);
    assert!(sentence(&said.text).contains("not-sound"), "{}", said.text);
    assert!(!into.join("postgres").exists());
}

#[tokio::test]
async fn a_database_that_cannot_be_backed_up_is_told_in_one_sentence() {
    let site = Site::new();
    let said = site.script("backup", &site.data(), &[]);
    assert!(!said.succeeded && said.text.contains("no database is running in"), "{}", said.text);
    assert_eq!(said.text.lines().count(), 1, "{}", said.text);
    for (words, why) in [
        (["--keep=0", "--into=/tmp"], "at least 1"),
        (["--nonsense", "x"], "unknown option --nonsense"),
        (["--data-dir", "x"], "--into FOLDER is required"),
    ] {
        let said = script("backup", &words);
        assert!(!said.succeeded && said.text.contains(why), "{why}: {}", said.text);
    }
    assert!(!site.backups().exists());
}

#[tokio::test]
async fn only_the_backups_that_are_kept_remain_and_they_are_enough() {
    let site = Site::new();
    let program = site.start_archiving().await;
    let id = wallet(&program.public).await;
    site.backup(&[]).await;
    deposit(&program.public, &id, "a").await;
    let first = files(&site.backups(), "Z").remove(0);

    let said = site.backup(&["--keep=1"]).await;

    assert!(said.text.contains(&format!("Deleting {}", first.display())), "{}", said.text);
    assert_eq!(files(&site.backups(), "Z").len(), 1);
    deposit(&program.public, &id, "b").await;
    assert!(program.stop().await.success());
    let log = files(&site.backups().join("wal"), "0");
    let label = files(&site.backups(), "Z").remove(0).join("cluster/backup_label");
    let label = fs::read_to_string(label).unwrap();
    let needed = label.split("(file ").nth(1).unwrap().split(')').next().unwrap();
    let oldest = log[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(oldest.starts_with(needed), "{oldest} is kept, {needed} is the first that is needed");
    let (_, said) = site.restore("new", &[]);
    assert!(said.succeeded && said.text.contains("3 transfers in"), "{}", said.text);
}

#[test]
fn the_archive_never_overwrites() {
    let folder = crate::harness::program::Folder::new();
    let (from, to) = (folder.0.join("segment"), folder.0.join("kept"));
    let archive =
        || script("lib/archive-wal", &[&from.display().to_string(), &to.display().to_string()]);
    fs::write(&from, "one").unwrap();
    assert!(archive().succeeded);
    let kept = fs::read(folder.0.join("kept.gz")).unwrap();
    assert!(archive().succeeded, "the same once more");

    fs::write(&from, "two").unwrap();
    let said = archive();

    assert!(
        !said.succeeded && said.text.contains("already exists with different content"),
        "{}",
        said.text
    );
    assert_eq!(fs::read(folder.0.join("kept.gz")).unwrap(), kept);
    assert_eq!(files(&folder.0, ".part").len(), 0);
}
