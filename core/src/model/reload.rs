//! A model whose device was lost, on its device again.

use super::Model;
use crate::{
    Result,
    exec::{ImageStore, Lost},
    load,
};

impl Model {
    /// Gives the device up, as its driver may at any time: to see what a program does then. What is under way ends with
    /// [`crate::Error::DeviceLost`], and the next request finds the model loaded anew. A processor is not lost.
    pub fn lose_device(&mut self) {
        self.executor.lose();
        self.draft.iter_mut().for_each(|draft| draft.lose_device());
    }

    /// Whether its device was lost, or that of its draft model.
    pub(crate) fn is_lost(&self) -> bool {
        self.executor.lost().is_some() || self.draft.as_ref().is_some_and(|draft| draft.is_lost())
    }

    /// Puts what was lost on its device anew: the same files and options, with the adapters and parameters that the model has by now.
    /// No sequence has pages any more.
    pub(crate) fn reload(&mut self) -> Result<()> {
        self.draft.as_mut().map_or(Ok(()), |draft| draft.reload())?;
        if self.executor.lost().is_none() {
            return Ok(());
        }
        let lost = Lost::of(self.executor.as_ref());
        self.executor = Box::new(lost.clone());
        let files = self.files.as_ref().ok_or_else(|| lost.because("the model has no files to be loaded from"))?;
        let (program, tower) = (files.program.clone(), files.tower.clone());
        let executor = load::executor(program, tower, &files.checkpoint, &self.adapters, &files.options, "")
            .map_err(|e| lost.because(format!("the model cannot be loaded anew: {e}")))?;
        if !lost.is_like(&Lost::of(executor.as_ref())) {
            let now = executor.device();
            return Err(lost.because(format!("{now} has not the same room: load the model anew")));
        }
        self.executor = executor;
        self.images = ImageStore::new(self.executor.image_rows());
        tracing::warn!("{}: the device was lost, the model is loaded anew", self.device());
        Ok(())
    }
}
