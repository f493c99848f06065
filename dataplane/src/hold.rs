//! Where the future of a request's attempts lies. It is the largest of all, and gone when the answer
//! begins.

use std::pin::Pin;

/// See the module.
pub(crate) trait Hold {
    /// The future, held.
    type Held<F: Future>: Future<Output = F::Output>;

    /// Holds it.
    fn hold<F: Future>(future: F) -> Self::Held<F>;
}

/// In a box of its own: an answer that is a stream, and lasts, then takes a third of the memory.
pub(crate) struct Boxed;

impl Hold for Boxed {
    type Held<F: Future> = Pin<Box<F>>;

    fn hold<F: Future>(future: F) -> Self::Held<F> {
        Box::pin(future)
    }
}

/// In the future of the request: no allocation, for connections of which there are few.
pub(crate) struct InPlace;

impl Hold for InPlace {
    type Held<F: Future> = F;

    #[inline]
    fn hold<F: Future>(future: F) -> F {
        future
    }
}
