//! Definitions: the steps of each kind of saga, by version.

/// A kind of saga in one version. A saga finishes under the version that it began with, so a change needs a new
/// version.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    pub kind: &'static str,
    pub version: i16,
    /// The steps in order. The posting that creates the saga does the first step.
    pub steps: &'static [StepDefinition],
}

#[derive(Debug, PartialEq, Eq)]
pub struct StepDefinition {
    pub name: &'static str,
    /// Whether the step calls another system; otherwise it only moves money in the book.
    pub calls: bool,
    /// Whether the step can be undone. After a step that cannot be undone, no step may fail permanently.
    pub has_undo: bool,
}

/// Finds a definition.
pub(super) fn find(
    definitions: &'static [Definition],
    kind: &str,
    version: i16,
) -> Option<&'static Definition> {
    definitions.iter().find(|definition| definition.kind == kind && definition.version == version)
}
