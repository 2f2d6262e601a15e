//! The lines that Rust's test programs print, read back into results.

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It was not run, for this reason.
    Ignored(String),
}

/// `test NAME ... ENDING`; other lines are none.
pub fn parse(line: &str) -> Option<(String, Ending)> {
    let (name, ending) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    // "test x - should panic ... ok", "test doc (line 3) - compile ... ok" keep their notes: they are part of the name.
    let ending = match ending.split_once(", ") {
        Some(("ignored", reason)) => Ending::Ignored(reason.to_owned()),
        _ if ending == "ok" => Ending::Passed,
        _ if ending == "ignored" => Ending::Ignored(String::new()),
        _ if ending.starts_with("FAILED") => Ending::Failed,
        _ => return None,
    };
    // Harnesses of other make align the endings.
    Some((name.trim_end().to_owned(), ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_and_an_ending() {
        let read = parse;
        assert_eq!(read("test a::b ... ok"), Some(("a::b".into(), Ending::Passed)));
        assert_eq!(read("test a::b   ... ok"), Some(("a::b".into(), Ending::Passed)));
        assert_eq!(read("test a::b ... FAILED"), Some(("a::b".into(), Ending::Failed)));
        assert_eq!(
            read("test a ... ignored, takes an hour"),
            Some(("a".into(), Ending::Ignored("takes an hour".into())))
        );
        assert_eq!(read("test a ... ignored"), Some(("a".into(), Ending::Ignored(String::new()))));
        assert_eq!(
            read("test src/a.rs - f (line 3) ... ok"),
            Some(("src/a.rs - f (line 3)".into(), Ending::Passed))
        );
        assert_eq!(read("test result: ok. 3 passed; 0 failed"), None);
        assert_eq!(read("running 3 tests"), None);
    }
}
