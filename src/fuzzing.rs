//! A way in for fuzzing (`fuzz/`): what only the program decodes. No part of its interface.

use crate::cli::config_file::Section;
use crate::cli::role::{BlockArgs, CoordinatorArgs, DirArgs, ProxyArgs, SmallArgs};
use crate::cli::up::UpArgs;
use crate::up::ensemble_file::EnsembleFile;
use crate::{identity, plan};

/// A configuration file, as every command reads it. What is refused is refused in one line; what is taken reads back as the same,
/// and makes export rules and a plan, or a sentence.
///
/// # Panics
/// If it does not.
pub fn configuration(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(up) = section::<UpArgs>(text) {
        drop(up.exports.exports());
        if let Ok(plan) = plan::plan(&up.plan, true) {
            let counts = [plan.expected.dir, plan.expected.small, plan.expected.block];
            assert!(counts.iter().all(|n| *n > 0), "{counts:?}");
            assert!(!plan.volumes.is_empty());
        }
        assert!(up.run.threads() > 0);
    }
    if let Some(proxy) = section::<ProxyArgs>(text) {
        drop(proxy.exports.exports());
    }
    if let Some(coordinator) = section::<CoordinatorArgs>(text) {
        drop(plan::plan(&coordinator.plan, true));
    }
    section::<DirArgs>(text);
    section::<SmallArgs>(text);
    section::<BlockArgs>(text);
}

fn section<S: Section + Default + std::fmt::Debug>(text: &str) -> Option<S> {
    let args = match S::default().over(text) {
        Ok(args) => args,
        Err(why) => {
            assert!(!why.contains('\n'), "{why:?}");
            return None;
        }
    };
    let table = toml::Table::try_from(&args).map(toml::Value::Table);
    let file = table.map(|table| toml::Table::from_iter([(S::NAME.to_owned(), table)]).to_string());
    let again = file.map(|file| S::default().over(&file).map(|args| format!("{args:?}")));
    assert_eq!(again, Ok(Ok(format!("{args:?}"))));
    Some(args)
}

/// The other files that the program reads: the identity, and what runs. What is understood reads back as the same.
///
/// # Panics
/// If it does not.
pub fn files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(found) = identity::parse(text) {
        let again = identity::text(&found).map(|text| identity::parse(&text));
        assert!(again.is_ok_and(|again| again == Ok(found)));
    }
    if let Ok(found) = serde_json::from_str::<EnsembleFile>(text) {
        let again = serde_json::to_string(&found).map(|text| serde_json::from_str(&text).ok());
        assert_eq!(again.ok().flatten(), Some(found));
    }
}
