# From a published store to encoders and embedding maps.


rule train:
    input:
        rules.publish.output,
    output:
        receipt=run.receipt("train/all"),
        history=f"{run.results}/history.jsonl",
    log:
        f"{run.results}/logs/train.log",
    benchmark:
        f"{run.results}/benchmarks/train.tsv"
    conda:
        "../../envs/train.yaml"
    threads: 16
    params:
        config=run.config_path,
        hash=run.hash("train"),
    shell:
        "jaisp train --config {params.config:q} --threads {threads} --log {log:q}"


rule embed_batch:
    input:
        rules.train.output.receipt,
    output:
        run.receipt("embed/{cell}.{survey}"),
    log:
        f"{run.results}/logs/embed.{{cell}}.{{survey}}.log",
    benchmark:
        f"{run.results}/benchmarks/embed.{{cell}}.{{survey}}.tsv"
    wildcard_constraints:
        cell="[a-z0-9]+",
    conda:
        "../../envs/train.yaml"
    params:
        config=run.config_path,
        hash=run.hash("embed"),
    shell:
        "jaisp embed --config {params.config:q} --cell {wildcards.cell} "
        "--survey {wildcards.survey} --threads {threads} --log {log:q}"


rule embed:
    input:
        expand(run.receipt("embed/{cell}.{survey}"), cell=run.cells, survey=run.surveys),
    output:
        run.receipt("embed/all"),
    log:
        f"{run.results}/logs/embed.log",
    benchmark:
        f"{run.results}/benchmarks/embed.tsv"
    conda:
        "../../envs/train.yaml"
    params:
        config=run.config_path,
        hash=run.hash("embed"),
    shell:
        "jaisp embed --config {params.config:q} --gather --log {log:q}"
