<resource schema="tiles" resdir="tiles">
  <meta name="title">Simulated tiles</meta>
  <meta name="description">Science, noise and mask images of two surveys.</meta>
  <meta name="creationDate">2025-01-01T00:00:00Z</meta>
  <meta name="subject">surveys</meta>

  <table id="main" onDisk="True" mixin="//siap#pgs" adql="True">
    <mixin collectionName="instId" calibLevel="3">//obscore#publishSIAP</mixin>
  </table>

  <data id="import">
    <sources pattern="data/*/*/*.fits"/>
    <embeddedGrammar>
      <iterator>
        <setup imports="os">
          <code>
            from astropy.io import fits
          </code>
        </setup>
        <code>
          with fits.open(self.sourceToken) as hdus:
            header = next(h.header for h in hdus if h.is_image and h.header["NAXIS"] == 2)
            row = dict(header.items())
          row["SURVEY"] = self.sourceToken.split(os.sep)[-3]
          yield row
        </code>
      </iterator>
      <rowfilter procDef="//products#define">
        <bind key="table">"\schema.main"</bind>
      </rowfilter>
    </embeddedGrammar>
    <make table="main">
      <rowmaker>
        <apply procDef="//siap#setMeta">
          <bind key="title">"%s %s" % (@SURVEY, @FILTER)</bind>
          <bind key="instrument">@SURVEY</bind>
          <bind key="bandpassId">@FILTER</bind>
        </apply>
        <apply procDef="//siap#computePGS"/>
      </rowmaker>
    </make>
  </data>
</resource>
