//! A finalizer that stands while a run may be under way: one whose FailoverDrill is deleted is ended first.

use diptych_api::FailoverDrill;

use crate::error::OperatorError;
use crate::finalizer;
use crate::options::OperatorOptions;

/// On FailoverDrills whose run is under way.
const FINALIZER: &str = "diptych.dev/drill";

/// Before a run is asked for.
pub(super) async fn hold(options: &OperatorOptions, drill: &FailoverDrill) -> Result<(), OperatorError> {
    finalizer::hold(options, drill, FINALIZER).await
}

/// Once nothing is under way.
pub(super) async fn release(options: &OperatorOptions, drill: &FailoverDrill) -> Result<(), OperatorError> {
    if !finalizer::is_held(drill, FINALIZER) {
        return Ok(());
    }
    match finalizer::release(options, drill, FINALIZER).await {
        // It was changed meanwhile, as by the last report: the next look does this.
        Err(error) if error.is_conflict() => Ok(()),
        released => released,
    }
}
