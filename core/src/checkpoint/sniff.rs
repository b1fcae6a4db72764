//! What a file really is when it is not what its name says.

/// How the pointer begins that Git LFS leaves in place of a large file:
/// <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Why these bytes cannot be a file of a model, with the remedy; `None` if nothing is known against them.
pub(crate) fn not_a_model_file(bytes: &[u8]) -> Option<&'static str> {
    if bytes.is_empty() {
        return Some("the file is empty: download it again");
    }
    if bytes.starts_with(LFS_POINTER) {
        return Some(
            "this is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository, or download it",
        );
    }
    let text = bytes.trim_ascii_start();
    let begins = |tag: &[u8]| text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
    if begins(b"<!doctype html") || begins(b"<html") {
        return Some(
            "this is an HTML page, perhaps of an error or a login, saved under the file's name: download it again",
        );
    }
    None
}

/// The format that these bytes begin like, if it is another one than expected.
pub(crate) fn format(bytes: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 7] = [
        (b"GGUF", "a GGUF file: give it the ending .gguf and open the file itself"),
        (b"PK\x03\x04", "a ZIP archive, such as a PyTorch .bin file: save the model as safetensors"),
        (b"\x80\x02", "a Python pickle: save the model as safetensors"),
        (b"\x80\x04", "a Python pickle: save the model as safetensors"),
        (b"\x1f\x8b", "compressed with gzip: unpack it first"),
        (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
        (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
    ];
    known.iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, what)| *what)
}
