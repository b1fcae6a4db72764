//! Models that registries know from the beginning: those of mlx-swift-lm whose architectures have a plugin here, and the
//! unquantized originals of each.

use super::{LlmRegistry, ModelConfiguration, VlmRegistry};
use crate::text::ToolCallFormat;

/// One model.
pub(super) struct Preconfigured {
    /// The function that makes it.
    pub name: &'static str,
    /// On the hub.
    id: &'static str,
    prompt: &'static str,
    eos: &'static [&'static str],
    tools: Option<ToolCallFormat>,
}

impl Preconfigured {
    /// Its configuration.
    pub fn configuration(&self) -> ModelConfiguration {
        let configuration = ModelConfiguration::hub(self.id).extra_eos_tokens(self.eos.iter().copied());
        let configuration = configuration.default_prompt(self.prompt);
        match self.tools {
            Some(format) => configuration.tool_call_format(format),
            None => configuration,
        }
    }
}

/// The table, and a function for each of its rows.
macro_rules! models {
    ($all:ident, $registry:ty: $($name:ident $id:literal $prompt:ident $eos:ident $(tools $tools:ident)?,)+) => {
        pub(super) const $all: &[Preconfigured] = &[$(Preconfigured {
            name: stringify!($name),
            id: $id,
            prompt: $prompt,
            eos: $eos,
            tools: models!(@tools $($tools)?),
        },)+];

        impl $registry {
            $(
                #[doc = concat!("`", $id, "`")]
                pub fn $name() -> ModelConfiguration {
                    let tools = models!(@tools $($tools)?);
                    Preconfigured { name: stringify!($name), id: $id, prompt: $prompt, eos: $eos, tools }.configuration()
                }
            )+
        }
    };
    (@tools) => { None };
    (@tools $tools:ident) => { Some(ToolCallFormat::$tools) };
}

const NONE: &str = "";
const SKY: &str = "Why is the sky blue?";
const FRUIT: &str = "What is the difference between a fruit and a vegetable?";
const LETTUCE: &str = "What is the difference between lettuce and cabbage?";
const GRAVITY: &str = "What is the gravity on Mars and the moon?";
const SPAIN: &str = "Tell me about the history of Spain.";
const QUATERNIONS: &str = "Explain quaternions.";
const RUST: &str = "Describe the Rust language.";
const SORT: &str = "fn sort(array: &[i32]) -> String { <FILL_ME> }";
const NINES: &str = "Is 9.9 greater or 9.11?";
const CHINESE: &str = "Translate the following text into Chinese: Hello, how are you?";
const HELLO: &str = "Hello, how are you?";
const DESCRIBE: &str = "Describe the image in English";
const EVENT: &str = "What is the main event in this segment? Describe it in one brief sentence.";
const HAIKU: &str = "Write a haiku about programming in Rust";

const OWN: &[&str] = &[];
const EOT: &[&str] = &["<|eot_id|>"];
const IM_END: &[&str] = &["<|im_end|>"];
const END: &[&str] = &["<|end|>"];
const END_OF_TURN: &[&str] = &["<end_of_turn>"];

models! { LLM, LlmRegistry:
    code_llama_13b_4bit "mlx-community/CodeLlama-13b-Instruct-hf-4bit-MLX" SORT OWN,
    code_llama_13b "codellama/CodeLlama-13b-Instruct-hf" SORT OWN,
    deepseek_r1_4bit "mlx-community/DeepSeek-R1-4bit" SPAIN OWN,
    deepseek_r1 "deepseek-ai/DeepSeek-R1" SPAIN OWN,
    deepseek_r1_7b_4bit "mlx-community/DeepSeek-R1-Distill-Qwen-7B-4bit" NINES OWN,
    deepseek_r1_7b "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B" NINES OWN,
    gemma_2b_quantized "mlx-community/quantized-gemma-2b-it" LETTUCE OWN,
    gemma_2b "google/gemma-2b-it" LETTUCE OWN,
    gemma_2_2b_it_4bit "mlx-community/gemma-2-2b-it-4bit" LETTUCE OWN,
    gemma_2_2b_it "google/gemma-2-2b-it" LETTUCE OWN,
    gemma_2_9b_it_4bit "mlx-community/gemma-2-9b-it-4bit" LETTUCE OWN,
    gemma_2_9b_it "google/gemma-2-9b-it" LETTUCE OWN,
    gemma3_1b_qat_4bit "mlx-community/gemma-3-1b-it-qat-4bit" FRUIT END_OF_TURN,
    gemma3_1b_qat "google/gemma-3-1b-it-qat-q4_0-unquantized" FRUIT END_OF_TURN,
    gemma3n_e4b_it_lm_bf16 "mlx-community/gemma-3n-E4B-it-lm-bf16" FRUIT END_OF_TURN,
    gemma3n_e4b_it_lm_4bit "mlx-community/gemma-3n-E4B-it-lm-4bit" FRUIT END_OF_TURN,
    gemma3n_e4b_it "google/gemma-3n-E4B-it" FRUIT END_OF_TURN,
    gemma3n_e2b_it_lm_bf16 "mlx-community/gemma-3n-E2B-it-lm-bf16" FRUIT END_OF_TURN,
    gemma3n_e2b_it_lm_4bit "mlx-community/gemma-3n-E2B-it-lm-4bit" FRUIT END_OF_TURN,
    gemma3n_e2b_it "google/gemma-3n-E2B-it" FRUIT END_OF_TURN,
    translategemma_4b_it_4bit "mlx-community/translategemma-4b-it-4bit" HELLO END_OF_TURN,
    translategemma_4b_it_8bit "mlx-community/translategemma-4b-it-8bit" HELLO END_OF_TURN,
    translategemma_4b_it "google/translategemma-4b-it" HELLO END_OF_TURN,
    translategemma_12b_it_4bit "mlx-community/translategemma-12b-it-4bit" HELLO END_OF_TURN,
    translategemma_12b_it_8bit "mlx-community/translategemma-12b-it-8bit" HELLO END_OF_TURN,
    translategemma_12b_it "google/translategemma-12b-it" HELLO END_OF_TURN,
    translategemma_27b_it_4bit "mlx-community/translategemma-27b-it-4bit" HELLO END_OF_TURN,
    translategemma_27b_it_8bit "mlx-community/translategemma-27b-it-8bit" HELLO END_OF_TURN,
    translategemma_27b_it "google/translategemma-27b-it" HELLO END_OF_TURN,
    hunyuan_mt_7b_4bit "mlx-community/Hunyuan-MT-7B-4bit" CHINESE OWN,
    hunyuan_mt_7b_8bit "mlx-community/Hunyuan-MT-7B-8bit" CHINESE OWN,
    hunyuan_mt_7b "tencent/Hunyuan-MT-7B" CHINESE OWN,
    hy_mt2_7b_4bit "mlx-community/Hy-MT2-7B-4bit" CHINESE OWN,
    hy_mt2_7b_8bit "mlx-community/Hy-MT2-7B-8bit" CHINESE OWN,
    hy_mt2_7b "tencent/Hy-MT2-7B" CHINESE OWN,
    granite3_3_2b_4bit "mlx-community/granite-3.3-2b-instruct-4bit" NONE OWN,
    granite3_3_2b "ibm-granite/granite-3.3-2b-instruct" NONE OWN,
    helium_1_2b_4bit "mlx-community/helium-1-preview-2b-4bit" SKY OWN,
    helium_1_2b "kyutai/helium-1-preview-2b" SKY OWN,
    llama3_1_8b_4bit "mlx-community/Meta-Llama-3.1-8B-Instruct-4bit" FRUIT EOT,
    llama3_1_8b "meta-llama/Llama-3.1-8B-Instruct" FRUIT EOT,
    llama3_2_1b_4bit "mlx-community/Llama-3.2-1B-Instruct-4bit" FRUIT EOT,
    llama3_2_1b "meta-llama/Llama-3.2-1B-Instruct" FRUIT EOT,
    llama3_2_3b_4bit "mlx-community/Llama-3.2-3B-Instruct-4bit" FRUIT EOT,
    llama3_2_3b "meta-llama/Llama-3.2-3B-Instruct" FRUIT EOT,
    llama3_8b_4bit "mlx-community/Meta-Llama-3-8B-Instruct-4bit" FRUIT EOT,
    llama3_8b "meta-llama/Meta-Llama-3-8B-Instruct" FRUIT EOT,
    mistral_7b_4bit "mlx-community/Mistral-7B-Instruct-v0.3-4bit" RUST OWN,
    mistral_7b "mistralai/Mistral-7B-Instruct-v0.3" RUST OWN,
    mistral_nemo_4bit "mlx-community/Mistral-Nemo-Instruct-2407-4bit" QUATERNIONS OWN,
    mistral_nemo "mistralai/Mistral-Nemo-Instruct-2407" QUATERNIONS OWN,
    phi3_5_4bit "mlx-community/Phi-3.5-mini-instruct-4bit" GRAVITY END,
    phi3_5 "microsoft/Phi-3.5-mini-instruct" GRAVITY END,
    phi_4bit "mlx-community/phi-2-hf-4bit-mlx" SKY OWN,
    phi "microsoft/phi-2" SKY OWN,
    qwen_2_0_5b_4bit "mlx-community/Qwen1.5-0.5B-Chat-4bit" SKY IM_END,
    qwen_2_0_5b "Qwen/Qwen1.5-0.5B-Chat" SKY IM_END,
    qwen2_5_7b_4bit "mlx-community/Qwen2.5-7B-Instruct-4bit" SKY IM_END,
    qwen2_5_7b "Qwen/Qwen2.5-7B-Instruct" SKY IM_END,
    qwen2_5_1_5b_4bit "mlx-community/Qwen2.5-1.5B-Instruct-4bit" SKY IM_END,
    qwen2_5_1_5b "Qwen/Qwen2.5-1.5B-Instruct" SKY IM_END,
    qwen3_0_6b_4bit "mlx-community/Qwen3-0.6B-4bit" SKY IM_END,
    qwen3_0_6b "Qwen/Qwen3-0.6B" SKY IM_END,
    qwen3_1_7b_4bit "mlx-community/Qwen3-1.7B-4bit" SKY IM_END,
    qwen3_1_7b "Qwen/Qwen3-1.7B" SKY IM_END,
    qwen3_4b_4bit "mlx-community/Qwen3-4B-4bit" SKY IM_END,
    qwen3_4b "Qwen/Qwen3-4B" SKY IM_END,
    qwen3_8b_4bit "mlx-community/Qwen3-8B-4bit" SKY IM_END,
    qwen3_8b "Qwen/Qwen3-8B" SKY IM_END,
    phi3_5_moe_4bit "mlx-community/Phi-3.5-MoE-instruct-4bit" GRAVITY END,
    phi3_5_moe "microsoft/Phi-3.5-MoE-instruct" GRAVITY END,
    qwen3_moe_30b_a3b_4bit "mlx-community/Qwen3-30B-A3B-4bit" SKY IM_END,
    qwen3_moe_30b_a3b "Qwen/Qwen3-30B-A3B" SKY IM_END,
    olmoe_1b_7b_0125_instruct_4bit "mlx-community/OLMoE-1B-7B-0125-Instruct-4bit" SKY OWN,
    olmoe_1b_7b_0125_instruct "allenai/OLMoE-1B-7B-0125-Instruct" SKY OWN,
    gpt_oss_20b_mxfp4_q8 "mlx-community/gpt-oss-20b-MXFP4-Q8" SKY OWN,
    gpt_oss_20b "openai/gpt-oss-20b" SKY OWN,
    smollm_135m_4bit "mlx-community/SmolLM-135M-Instruct-4bit" SPAIN OWN,
    smollm_135m "HuggingFaceTB/SmolLM-135M-Instruct" SPAIN OWN,
    smollm3_3b_4bit "mlx-community/SmolLM3-3B-4bit" SKY OWN,
    smollm3_3b "HuggingFaceTB/SmolLM3-3B" SKY OWN,
    glm4_9b_4bit "mlx-community/GLM-4-9B-0414-4bit" SKY OWN tools Glm4,
    glm4_9b "zai-org/GLM-4-9B-0414" SKY OWN tools Glm4,
    acereason_7b_4bit "mlx-community/AceReason-Nemotron-7B-4bit" NONE OWN,
    acereason_7b "nvidia/AceReason-Nemotron-7B" NONE OWN,
    ernie_45_0_3b_pt_bf16_ft "mlx-community/ERNIE-4.5-0.3B-PT-bf16-ft" SKY OWN,
    ernie_45_0_3b_pt "baidu/ERNIE-4.5-0.3B-PT" SKY OWN,
    lfm2_1_2b_4bit "mlx-community/LFM2-1.2B-4bit" SKY OWN tools Lfm2,
    lfm2_1_2b "LiquidAI/LFM2-1.2B" SKY OWN tools Lfm2,
    exaone_4_0_1_2b_4bit "mlx-community/exaone-4.0-1.2b-4bit" SKY OWN,
    exaone_4_0_1_2b "LGAI-EXAONE/EXAONE-4.0-1.2B" SKY OWN,
    olmo_2_1124_7b_instruct_4bit "mlx-community/OLMo-2-1124-7B-Instruct-4bit" SKY OWN,
    olmo_2_1124_7b_instruct "allenai/OLMo-2-1124-7B-Instruct" SKY OWN,
}

models! { VLM, VlmRegistry:
    paligemma_3b_mix_448_8bit "mlx-community/paligemma-3b-mix-448-8bit" DESCRIBE OWN,
    paligemma_3b_mix_448 "google/paligemma-3b-mix-448" DESCRIBE OWN,
    qwen2_vl_2b_instruct_4bit "mlx-community/Qwen2-VL-2B-Instruct-4bit" DESCRIBE IM_END,
    qwen2_vl_2b_instruct "Qwen/Qwen2-VL-2B-Instruct" DESCRIBE IM_END,
    qwen2_5_vl_3b_instruct_4bit "mlx-community/Qwen2.5-VL-3B-Instruct-4bit" DESCRIBE IM_END,
    qwen2_5_vl_3b_instruct "Qwen/Qwen2.5-VL-3B-Instruct" DESCRIBE IM_END,
    qwen3_vl_4b_instruct_4bit "lmstudio-community/Qwen3-VL-4B-Instruct-MLX-4bit" DESCRIBE IM_END,
    qwen3_vl_4b_instruct_8bit "mlx-community/Qwen3-VL-4B-Instruct-8bit" HAIKU IM_END,
    qwen3_vl_4b_instruct "Qwen/Qwen3-VL-4B-Instruct" DESCRIBE IM_END,
    smolvlm_instruct_4bit "mlx-community/SmolVLM-Instruct-4bit" DESCRIBE OWN,
    smolvlm_instruct "HuggingFaceTB/SmolVLM-Instruct" DESCRIBE OWN,
    smolvlm "HuggingFaceTB/SmolVLM2-500M-Video-Instruct-mlx" EVENT OWN,
    smolvlm2_500m_video_instruct "HuggingFaceTB/SmolVLM2-500M-Video-Instruct" EVENT OWN,
    gemma3_4b_qat_4bit "mlx-community/gemma-3-4b-it-qat-4bit" DESCRIBE END_OF_TURN,
    gemma3_4b_qat "google/gemma-3-4b-it-qat-q4_0-unquantized" DESCRIBE END_OF_TURN,
    gemma3_12b_qat_4bit "mlx-community/gemma-3-12b-it-qat-4bit" DESCRIBE END_OF_TURN,
    gemma3_12b_qat "google/gemma-3-12b-it-qat-q4_0-unquantized" DESCRIBE END_OF_TURN,
    gemma3_27b_qat_4bit "mlx-community/gemma-3-27b-it-qat-4bit" DESCRIBE END_OF_TURN,
    gemma3_27b_qat "google/gemma-3-27b-it-qat-q4_0-unquantized" DESCRIBE END_OF_TURN,
}
