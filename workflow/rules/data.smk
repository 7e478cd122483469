# From an archive to a published store of patches.


if run.is_simulated:

    rule simulate:
        output:
            run.receipt("simulate/all"),
        log:
            f"{run.results}/logs/simulate.log",
        benchmark:
            f"{run.results}/benchmarks/simulate.tsv"
        conda:
            "../../envs/data.yaml"
        params:
            config=run.config_path,
            hash=run.hash("simulate"),
        shell:
            "jaisp simulate --config {params.config:q} --log {log:q}"


rule plan:
    input:
        images=run.local_files,
        simulated=[run.receipt("simulate/all")] if run.is_simulated else [],
    output:
        receipt=run.receipt("plan/all"),
        tiles=f"{run.results}/tiles.ecsv",
    log:
        f"{run.results}/logs/plan.log",
    benchmark:
        f"{run.results}/benchmarks/plan.tsv"
    conda:
        "../../envs/data.yaml"
    params:
        config=run.config_path,
        hash=run.hash("plan"),
    shell:
        "jaisp plan --config {params.config:q} --log {log:q}"


rule fetch_batch:
    input:
        rules.plan.output.tiles,
    output:
        run.receipt("fetch/batch{batch}"),
    log:
        f"{run.results}/logs/fetch.{{batch}}.log",
    benchmark:
        f"{run.results}/benchmarks/fetch.{{batch}}.tsv"
    conda:
        "../../envs/data.yaml"
    params:
        config=run.config_path,
        hash=run.hash("fetch"),
    shell:
        "jaisp fetch --config {params.config:q} --batch {wildcards.batch} --log {log:q}"


rule fetch:
    input:
        expand(run.receipt("fetch/batch{batch}"), batch=run.batches),
    output:
        run.receipt("fetch/all"),
    log:
        f"{run.results}/logs/fetch.log",
    conda:
        "../../envs/data.yaml"
    params:
        config=run.config_path,
        hash=run.hash("fetch"),
    shell:
        "jaisp fetch --config {params.config:q} --gather --log {log:q}"


rule warp_batch:
    input:
        rules.fetch.output,
    output:
        run.receipt("warp/{cell}.{survey}"),
    log:
        f"{run.results}/logs/warp.{{cell}}.{{survey}}.log",
    benchmark:
        f"{run.results}/benchmarks/warp.{{cell}}.{{survey}}.tsv"
    wildcard_constraints:
        cell="[a-z0-9]+",
    conda:
        "../../envs/data.yaml"
    params:
        config=run.config_path,
        hash=lambda wildcards: run.batch_hash(wildcards.cell, wildcards.survey),
    shell:
        "jaisp warp --config {params.config:q} --cell {wildcards.cell} "
        "--survey {wildcards.survey} --threads {threads} --log {log:q}"


rule warp:
    input:
        expand(run.receipt("warp/{cell}.{survey}"), cell=run.cells, survey=run.surveys),
    output:
        run.receipt("warp/all"),
    log:
        f"{run.results}/logs/warp.log",
    conda:
        "../../envs/data.yaml"
    params:
        config=run.config_path,
    shell:
        "jaisp warp --config {params.config:q} --gather --log {log:q}"


rule publish:
    input:
        rules.warp.output,
    output:
        run.receipt("publish/all"),
    log:
        f"{run.results}/logs/publish.log",
    benchmark:
        f"{run.results}/benchmarks/publish.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 16
    params:
        config=run.config_path,
        hash=run.hash("publish"),
    shell:
        "jaisp publish --config {params.config:q} --threads {threads} --log {log:q}"
