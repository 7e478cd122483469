"""The model card: what a model was made from, and what it can't do."""

from jaisp.model import Model
from jaisp.store.reader import Store


def model_card(model: Model, store: Store, steps: int, top1: float | None) -> str:
    """Markdown of results/RUN/model/README.md."""
    surveys = "\n".join(
        f"| {name} | {' '.join(survey.bands)} | {survey.grid_arcsec:g}″ "
        f"| {survey.pixels_per_token} |"
        for name, survey in model.config.surveys.items()
    )
    parameters = sum(p.numel() for p in model.parameters())
    counts = ", ".join(
        f"{len(store.where(split))} {split}" for split in ("train", "validation", "test", "none")
    )
    figure = "no validation patches" if top1 is None else f"validation retrieval top-1 {top1:.3f}"
    return f"""# JAISP model of run {store.run}

Self-supervised encoders, one a survey, of which tokens of the same sky agree.

| survey | bands | pixel | pixels a token |
|---|---|---|---|
{surveys}

- Tokens: {model.config.token_arcsec:g}″, {model.config.dimensions} dimensions; \
{parameters:,} parameters (`{model.config.size}`); receptive field \
{model.receptive_field_arcsec:.1f}″ beyond a token's edge.
- Data: {len(store)} patches of {store.patch_arcsec:g}″ ({counts}); no labels and no catalogue.
- Training: {steps} steps; {figure}. Measured figures with their controls: `metrics.json` and
  `report.html` of the run.

```python
model = jaisp.load("model")
tokens = model.encode(flux, noise, mask, survey=..., bands=[...])   # nJy; NaN is missing
```

## Limits

- It knows the surveys and bands above, on pixels of the size above, north up or not.
- Flux is seen relative to the noise plane: with wrong noise, tokens are wrong.
- Trained on this field alone; other depths, seeing or sky density are untested unless the
  report says otherwise.
- Alignment keeps what both views of a pair can see; detail that only the sharper survey shows
  may be lost.
"""
