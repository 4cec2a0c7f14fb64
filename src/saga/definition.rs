//! Definitions of sagas: the steps of each kind of saga, by version.

/// Steps of a kind of saga in one version. A running saga keeps the version with which it began, so a change to the
/// steps requires a new version.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    pub kind: &'static str,
    pub version: i16,
    /// The steps, in order. The ledger posting that creates the saga also completes the first step.
    pub steps: &'static [StepDefinition],
}

#[derive(Debug, PartialEq, Eq)]
pub struct StepDefinition {
    pub name: &'static str,
    /// Whether the step calls an external system. If not, it only moves money in the ledger.
    pub calls: bool,
    /// Whether the step can be undone. After a step that cannot be undone, no step may fail permanently.
    pub has_undo: bool,
}

/// Finds the definition with this kind and version.
pub(super) fn find(
    definitions: &'static [Definition],
    kind: &str,
    version: i16,
) -> Option<&'static Definition> {
    definitions.iter().find(|definition| definition.kind == kind && definition.version == version)
}
