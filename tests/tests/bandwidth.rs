//! The kernel that measures memory bandwidth reads all that it says.

use tamarack_kernels::bandwidth::{UNSEEN, block, read};
use tamarack_tests::gpu::{both_ways, run};

#[test]
fn every_word_is_read() {
    both_ways(|gpu, caps| {
        let bytes = 3 * block(caps);
        let kernel = read(bytes + 5, caps);
        let vectors = bytes as usize / 16;
        for at in [0, 1, 255, 256, vectors / 2 + 7, vectors - 1] {
            let mut input = vec![0; vectors * 4];
            input[at * 4..][..4].copy_from_slice(&UNSEEN);
            let mut buffers = [vec![0; 4], input, vec![0; 4]];
            run(gpu, &kernel, 1, 1, &mut buffers);
            assert_eq!(buffers[2], UNSEEN, "{} vector {at}", kernel.name);
        }
    });
}
