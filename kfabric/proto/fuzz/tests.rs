// SPDX-License-Identifier: GPL-2.0

use super::super::testing;
use super::super::violation::Violation;
use super::*;
use std::path::PathBuf;

fn folder(target: &str) -> PathBuf {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    corpus.join(target)
}

/// The files of a target.
fn files(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(folder(target)).expect("the corpus");
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn corpus_breaks_nothing() {
    let write = std::env::var("KFABRIC_CORPUS").is_ok_and(|what| what == "write");
    for target in TARGETS {
        let composed = compose::corpus(target.name);
        if write {
            std::fs::create_dir_all(folder(target.name)).unwrap();
            for (at, bytes) in composed.iter().enumerate() {
                std::fs::write(folder(target.name).join(format!("{at:03}")), bytes).unwrap();
            }
        }
        let files = files(target.name);
        assert!(files.len() >= composed.len(), "{} lacks files", target.name);
        for (path, bytes) in files {
            println!("{}", path.display());
            (target.run)(&bytes);
        }
    }
}

#[test]
fn corpus_of_the_machine_reaches_far() {
    let mut reached = script::Reached::default();
    for (_, bytes) in files("peer") {
        script::run(&bytes, &mut reached);
    }
    println!("{:?} {:?}", reached.actions, reached.violations);
    for action in [
        "Nothing", "Discard", "Message", "Offer", "Write", "Commit", "Read", "Atomic", "Announce",
        "Withdraw",
    ] {
        assert!(reached.actions.contains_key(action), "{action}");
    }
    for violation in [
        Violation::Gap,
        Violation::Acknowledged,
        Violation::Index,
        Violation::Piece,
        Violation::Reply,
        Violation::Credit,
        Violation::Context,
    ] {
        let name = violation.name();
        assert!(reached.violations.contains_key(name), "{name}");
    }
}

#[test]
fn random_changes_of_the_corpus_break_nothing() {
    let mut rng = testing::rng();
    for target in TARGETS {
        let files = files(target.name);
        for _ in 0..4_000 {
            let (_, mut bytes) = files[rng.below(files.len() as u64) as usize].clone();
            for _ in 0..rng.below(8) {
                let at = rng.below(bytes.len().max(1) as u64) as usize;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = rng.next_u64() as u8;
                }
            }
            (target.run)(&bytes);
        }
    }
}

#[test]
fn bytes_without_any_sense_break_nothing() {
    let mut rng = testing::rng();
    for target in TARGETS {
        for _ in 0..2_000 {
            let mut bytes = vec![0; rng.below(600) as usize];
            rng.fill(&mut bytes);
            (target.run)(&bytes);
        }
    }
}
