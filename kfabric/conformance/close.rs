// SPDX-License-Identifier: GPL-2.0

//! Closes: those that must succeed, and those that must be refused.

use crate::check_eq;
use kernel::prelude::*;

/// What a close gives, or only its error: what it refused to close is dropped.
pub(crate) fn closed<T, O>(result: core::result::Result<T, (Error, O)>) -> Result<T> {
    result.map_err(|(error, _object)| error)
}

/// What comes back from a close that must be refused, because of what is in use.
#[track_caller]
pub(crate) fn busy<T, O>(result: core::result::Result<T, (Error, O)>) -> Result<O> {
    given_back(result, EBUSY)
}

/// What comes back from whatever must be refused with `expected`.
#[track_caller]
pub(crate) fn given_back<T, O>(
    result: core::result::Result<T, (Error, O)>,
    expected: Error,
) -> Result<O> {
    match result {
        Err((error, object)) => {
            check_eq!(error, expected);
            Ok(object)
        }
        Ok(_) => {
            check_eq!(Ok::<(), Error>(()), Err(expected));
            Err(EINVAL)
        }
    }
}
