"""The page Train: what can be trained here and what cannot, said plainly."""

import gradio as gr

from darkroom.ui.shell import Shell


def build(shell: Shell) -> None:
    """Its texts, inside its tab."""
    _ = shell.words
    with gr.Column(elem_id="train"):
        gr.Markdown(
            _(
                "Embeddings and hypernetworks cannot be trained on this server: training is not part of it. The routes"
                " that clients call for it are there and answer so."
            )
        )
        gr.Markdown(_("What was trained elsewhere can be used here, and new models come out of those you have:"))
        gr.Markdown(
            _(
                "- LoRA and its kin, embeddings, hypernetworks, checkpoints: put the file into the folder of its kind,"
                " then press Reload lists on the page Models.\n"
                "- A new checkpoint out of two or three others: the page Checkpoint Merger.\n"
                "- Captions for training elsewhere, in words or in tags: Interrogate on the page img2img."
            )
        )
