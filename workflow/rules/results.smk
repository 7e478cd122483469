# From frozen encoders to figures and the page that shows them.


rule evaluate:
    input:
        rules.train.output.receipt,
        rules.inject.output,
    output:
        report(
            f"{run.results}/metrics.json",
            caption="../report/metrics.rst",
            category="Figures",
        ),
    log:
        f"{run.results}/logs/evaluate.log",
    benchmark:
        f"{run.results}/benchmarks/evaluate.tsv"
    conda:
        "../../envs/train.yaml"
    threads: 16
    params:
        config=run.config_path,
        hash=run.hash("evaluate"),
    shell:
        "jaisp evaluate --config {params.config:q} --threads {threads} --log {log:q}"


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
