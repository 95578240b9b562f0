//! What a check says.

use serde::Serialize;

/// Whether a host is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As wanted.
    Good,
    /// Worth changing.
    Change,
    /// It could not be found out.
    Unknown,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) name: &'static str,
    /// What is to be thought of it.
    pub(crate) verdict: Verdict,
    /// What is.
    pub(crate) found: String,
    /// What should be.
    pub(crate) wanted: &'static str,
    /// Why.
    pub(crate) why: &'static str,
    /// What changes it.
    pub(crate) fix: Option<String>,
}

/// What is wanted of a host, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// What is looked at.
    pub(crate) name: &'static str,
    /// What should be.
    pub(crate) wanted: &'static str,
    /// Why.
    pub(crate) why: &'static str,
}

impl Wish {
    /// It is so.
    pub(crate) fn good(self, found: impl Into<String>) -> Finding {
        self.says(Verdict::Good, found.into(), None)
    }

    /// It is not so; `fix` changes it.
    pub(crate) fn change(self, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        self.says(Verdict::Change, found.into(), Some(fix.into()))
    }

    /// `good` decides.
    pub(crate) fn judge(self, good: bool, found: impl Into<String>, fix: &str) -> Finding {
        if good { self.good(found) } else { self.change(found, fix) }
    }

    /// Nobody knows.
    pub(crate) fn unknown(self, found: impl Into<String>) -> Finding {
        self.says(Verdict::Unknown, found.into(), None)
    }

    fn says(self, verdict: Verdict, found: String, fix: Option<String>) -> Finding {
        Finding { name: self.name, verdict, found, wanted: self.wanted, why: self.why, fix }
    }
}
