# Skies with known answers, encoders, and embedding maps, all from a published store.


rule inject_batch:
    input:
        rules.publish.output,
    output:
        run.receipt("inject/{sky}"),
    log:
        f"{run.results}/logs/inject.{{sky}}.log",
    benchmark:
        f"{run.results}/benchmarks/inject.{{sky}}.tsv"
    wildcard_constraints:
        sky="(?!all$)[a-z0-9_]+",
    conda:
        "../../envs/data.yaml"
    params:
        config=run.config_path,
        hash=run.hash("inject"),
    shell:
        "jaisp inject --config {params.config:q} --sky {wildcards.sky} --threads {threads} "
        "--log {log:q}"


rule inject:
    input:
        rules.publish.output,
        expand(run.receipt("inject/{sky}"), sky=run.skies),
    output:
        run.receipt("inject/all"),
    log:
        f"{run.results}/logs/inject.log",
    conda:
        "../../envs/data.yaml"
    params:
        config=run.config_path,
        hash=run.hash("inject"),
    shell:
        "jaisp inject --config {params.config:q} --gather --log {log:q}"


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
    resources:
        tasks=1,
    params:
        config=run.config_path,
        hash=run.hash("train"),
    shell:
        "jaisp train --config {params.config:q} --processes {resources.tasks} "
        "--threads {threads} --log {log:q}"


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


rule embed_basis:
    input:
        expand(run.receipt("embed/{cell}.{survey}"), cell=run.cells, survey=run.surveys),
    output:
        run.receipt("maps/basis"),
    log:
        f"{run.results}/logs/embed.basis.log",
    benchmark:
        f"{run.results}/benchmarks/embed.basis.tsv"
    conda:
        "../../envs/train.yaml"
    params:
        config=run.config_path,
        hash=run.hash("embed"),
    shell:
        "jaisp embed --config {params.config:q} --basis --log {log:q}"


rule map_batch:
    input:
        rules.embed_basis.output,
    output:
        run.receipt("maps/{cell}.{survey}"),
    log:
        f"{run.results}/logs/maps.{{cell}}.{{survey}}.log",
    benchmark:
        f"{run.results}/benchmarks/maps.{{cell}}.{{survey}}.tsv"
    wildcard_constraints:
        cell="[a-z0-9]+",
    conda:
        "../../envs/train.yaml"
    params:
        config=run.config_path,
        hash=run.hash("embed"),
    shell:
        "jaisp embed --config {params.config:q} --maps --cell {wildcards.cell} "
        "--survey {wildcards.survey} --log {log:q}"


rule embed:
    input:
        expand(run.receipt("maps/{cell}.{survey}"), cell=run.cells, survey=run.surveys),
    output:
        run.receipt("embed/all"),
    log:
        f"{run.results}/logs/embed.log",
    conda:
        "../../envs/train.yaml"
    params:
        config=run.config_path,
        hash=run.hash("embed"),
    shell:
        "jaisp embed --config {params.config:q} --gather --log {log:q}"
