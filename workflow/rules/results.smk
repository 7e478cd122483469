# From frozen encoders to figures and the page that shows them.


rule evaluate_batch:
    input:
        rules.train.output.receipt,
        rules.inject.output,
    output:
        run.receipt("evaluate/{part}"),
    log:
        f"{run.results}/logs/evaluate.{{part}}.log",
    benchmark:
        f"{run.results}/benchmarks/evaluate.{{part}}.tsv"
    priority: lambda wildcards: len(run.parts) - run.parts.index(wildcards.part)
    conda:
        "../../envs/train.yaml"
    params:
        config=run.config_path,
        hash=run.hash("evaluate"),
    shell:
        "jaisp evaluate --config {params.config:q} --part {wildcards.part} "
        "--threads {threads} --log {log:q}"


rule evaluate:
    input:
        expand(run.receipt("evaluate/{part}"), part=run.parts),
    output:
        report(
            f"{run.results}/metrics.json",
            caption="../report/metrics.rst",
            category="Figures",
        ),
    log:
        f"{run.results}/logs/evaluate.log",
    conda:
        "../../envs/train.yaml"
    params:
        config=run.config_path,
        hash=run.hash("evaluate"),
    shell:
        "jaisp evaluate --config {params.config:q} --gather --log {log:q}"


rule report:
    input:
        rules.evaluate.output,
        rules.embed.output,
    output:
        report(
            f"{run.results}/report.html",
            caption="../report/page.rst",
            category="Report",
        ),
    log:
        f"{run.results}/logs/report.log",
    conda:
        "../../envs/train.yaml"
    params:
        config=run.config_path,
        hash=run.hash("report"),
    shell:
        "jaisp report --config {params.config:q} --log {log:q}"
