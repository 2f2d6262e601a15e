//! How far a workload is, on standard error if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How often figures beside a bar are renewed.
pub const EVERY: Duration = Duration::from_millis(500);

fn styled(bar: ProgressBar, template: &str, what: &str) -> ProgressBar {
    // A template that the library does not understand leaves its default bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
    }
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(EVERY);
    bar
}

/// A bar of a known time, in milliseconds.
#[must_use]
pub fn time(what: &str, whole: Duration) -> ProgressBar {
    let whole = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX);
    styled(ProgressBar::new(whole), "{prefix} {wide_bar} {eta} left, {msg}", what)
}

/// A bar of calls, with their rate.
#[must_use]
pub fn calls(what: &str, whole: u64) -> ProgressBar {
    styled(
        ProgressBar::new(whole),
        "{prefix} {wide_bar} {human_pos} of {human_len} calls, {per_sec}, {eta} left {msg}",
        what,
    )
}

/// A bar of KiB, with their rate.
#[must_use]
pub fn kib(what: &str) -> ProgressBar {
    styled(
        ProgressBar::new(0),
        "{prefix} {wide_bar} {human_pos} of {human_len} KiB, {per_sec}, {eta} left",
        what,
    )
}
